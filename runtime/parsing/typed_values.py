"""Arguments that a model wrote as plain text, given the type that the tool's JSON Schema declares."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from runtime.parsing.json_text import whole_json

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_NUMBER_CHARS = 400
_INT64 = 2**63


def typed_value(text: str, schema: Mapping[str, Any]) -> Any:
    """The value `text` stands for. What fits none of the declared types is a string, as is what has none."""
    text = text.removeprefix("\n").removesuffix("\n")
    if text.strip().lower() == "null":
        return None
    types = _types(schema)
    for name, read in _READERS.items():
        if name not in types:
            continue
        try:
            return read(text.strip())
        except ValueError:
            if types == {"boolean"}:
                return False
    return text


def _types(schema: Mapping[str, Any]) -> set[str]:
    found = schema.get("type")
    names = {name for name in (found if isinstance(found, list) else [found]) if isinstance(name, str)}
    branches = schema.get("anyOf")
    for branch in branches if isinstance(branches, list) else []:
        if isinstance(branch, dict):
            names |= _types({"type": branch.get("type")})
    return names


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> int | float:
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        raise ValueError(text)
    return int(number) if number.is_integer() and abs(number) < _INT64 else number


def _json_of(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = whole_json(text)
        if not isinstance(value, kind):
            raise ValueError(text)
        return value

    return read


_READERS: dict[str, Callable[[str], Any]] = {  # in the order in which they are tried
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "array": _json_of(list),
    "object": _json_of(dict),
}
