"""What the tests of the parsers share: reading a whole answer in pieces, and the tools of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import RuntimeFailure
from runtime.parsing.calls import AnswerParser
from runtime.parsing.choice import Format, parser_for


def tool(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool(
        "get_weather",
        city={"type": "string"},
        days={"type": "integer"},
        exact={"type": "boolean"},
        at={"type": "array"},
        near={"type": "object"},
        limit={"anyOf": [{"type": "number"}, {"type": "null"}]},
    ),
    tool("get", key={"type": "string"}),
    tool("clock"),
]


@dataclass
class Read:
    """An answer, read to its end."""

    thinking: str = ""
    content: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failure: str = ""


def read(parser: AnswerParser, pieces: Iterable[str]) -> Read:
    answer, index = Read(), 0
    steps: list[Callable[[], Any]] = [lambda piece=piece: parser.feed(piece) for piece in pieces]
    for step in [*steps, parser.finish]:
        try:
            parsed = step()
        except RuntimeFailure as failure:
            answer.failure = str(failure)
            break
        answer.thinking += parsed.thinking
        answer.content += parsed.content
        for call in parsed.calls:
            assert call.index == index
            assert len(call.id) == 13
            index += 1
            answer.calls.append((call.name, call.arguments))
    return answer


def configured(parser: str, text: str | Sequence[str], tools: Sequence[Any] = TOOLS, **facts: Any) -> Read:
    """`text` as the parser of that name reads it, whole or in the pieces given."""
    form = Format(parser, is_configured=True)
    return read(parser_for(form, tools=tools, **facts), [text] if isinstance(text, str) else text)
