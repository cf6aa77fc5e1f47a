"""An answer that has to be one tool call, because the request says so: JSON, which the sampler has been held to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.errors import FormatInvalid
from runtime.parsing.calls import AnswerParser, Parsed, new_call
from runtime.parsing.json_text import whole_json
from runtime.structured.schema import Constraint, constraint

JSON = dict[str, Any]


def call_schema(tools: Sequence[Mapping[str, Any]]) -> Constraint:
    """What a call of one of `tools` is. Parameters that cannot be held to may be any object. Raises FormatInvalid."""
    try:
        found = constraint({"anyOf": [_call(tool) for tool in tools]})
    except FormatInvalid:  # too much for one schema: then the names at least
        found = constraint({"anyOf": [_call(tool, is_plain=True) for tool in tools]})
    assert found is not None
    return found


def _call(tool: Mapping[str, Any], *, is_plain: bool = False) -> JSON:
    function = tool.get("function")
    described = function if isinstance(function, dict) else {}
    name = described.get("name")
    if not isinstance(name, str) or not name:
        raise FormatInvalid("a tool that must be called has no name")
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "arguments": _parameters(None if is_plain else described.get("parameters")),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _parameters(given: object) -> JSON:
    plain = {"type": "object"}
    if not isinstance(given, dict):
        return plain
    schema = {**given, "type": "object"}
    try:
        constraint(schema)
    except FormatInvalid:
        return plain
    # references of the parameters are to the parameters, not to what they stand in
    return plain if "$ref" in json.dumps(given) else schema


class ForcedCall:
    """What `parser` takes for reasoning passes; the rest is collected, and is a call when it is whole."""

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._text: list[str] = []

    def feed(self, text: str) -> Parsed:
        split = self._parser.feed(text)
        self._text.append(split.content)
        return Parsed(thinking=split.thinking)

    def finish(self) -> Parsed:
        """The call; what an answer that was cut short had of one comes as content."""
        split = self._parser.finish()
        text = "".join(self._text) + split.content
        before, brace, rest = text.partition("{")  # some models say a word before they call
        try:
            called = whole_json(brace + rest)
            call = new_call(str(called["name"]), dict(called["arguments"]), 0)
        except (ValueError, TypeError, KeyError, RecursionError):
            return Parsed(split.thinking, text)
        return Parsed(split.thinking, before.strip(), calls=(call,))
