"""Calls whose arguments are JSON: between tags, behind a name, or in a list of Cohere's."""

from __future__ import annotations

import re

from runtime.parsing.calls import Declared
from runtime.parsing.json_text import arguments_of, lenient_json, own_arguments, own_name
from runtime.parsing.splitter import Call

DEEPSEEK_SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"  # DeepSeek writes full-width bars and low blocks
KIMI_SEPARATOR = "<|tool_call_argument_begin|>"
_CALL_ID = re.compile(r"\[CALL_ID\]\w{0,64}")
_NUMBER = re.compile(r":[0-9]{1,9}$")
_MAX_CALLS = 1000


def read_json(text: str, _: Declared) -> list[Call]:
    """`{"name": …, "arguments": {…}}`, or a list of such objects."""
    value = lenient_json(text)
    calls: list[Call] = []
    for item in value if isinstance(value, list) else [value]:
        name = own_name(item) if isinstance(item, dict) else None
        arguments = own_arguments(item) if isinstance(item, dict) else None
        if not name or arguments is None or len(calls) >= _MAX_CALLS:
            raise ValueError("a call has a name and arguments")
        calls.append((name, arguments))
    return calls


def read_mistral(text: str, _: Declared) -> list[Call]:
    """`NAME[ARGS]{…}`; older models write `NAME{…}`, and `NAME[CALL_ID]x[ARGS]{…}`."""
    head, brace, rest = text.partition("{")
    name = _CALL_ID.sub("", head.removesuffix("[ARGS]")).strip()
    if not brace or not name or "[" in name:
        raise ValueError("a call has a name and arguments")
    return [(name, arguments_of(lenient_json(brace + rest)))]


def read_deepseek(text: str, _: Declared) -> list[Call]:
    """`NAME<sep>{…}`, or the older `function<sep>NAME` with the arguments in a fence."""
    name, separator, arguments = text.partition(DEEPSEEK_SEPARATOR)
    if name.strip() == "function" and not arguments.lstrip().startswith("{"):
        name, _newline, arguments = arguments.strip().partition("\n")
        arguments = arguments.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    if not separator or not name.strip():
        raise ValueError("a call has a name and arguments")
    return [(name.strip(), arguments_of(lenient_json(arguments)))]


def read_kimi(text: str, _: Declared) -> list[Call]:
    """`functions.NAME:0<sep>{…}`."""
    head, separator, arguments = text.partition(KIMI_SEPARATOR)
    name = _NUMBER.sub("", head.strip().removeprefix("functions."))
    if not separator or not name:
        raise ValueError("a call has a name and arguments")
    return [(name, arguments_of(lenient_json(arguments)))]
