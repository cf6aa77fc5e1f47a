"""Values → compact JSON, as Go's encoding/json writes it. Source: its documentation, "Marshal"."""

from __future__ import annotations

import base64
import json
import math
import re

from runtime.templates.go.budget import Budget
from runtime.templates.go.numbers import shortest
from runtime.templates.go.values import INVALID, Blob, Byte, List, Map, Omit, Prints, Struct, truth

_HTML = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})
_STRAY = re.compile("[\ud800-\udfff]")


class JSONRefused(Exception):
    """JSON has no form for the value."""


def json_form(value: object, budget: Budget) -> str:
    """Raises JSONRefused for numbers that JSON has no form for."""
    parts: list[str] = []
    _write(value, parts, budget)
    return budget.made("".join(parts))


def _write(value: object, parts: list[str], budget: Budget) -> None:
    budget.charge(2)
    match value:
        case str():
            budget.make(2 * len(value))
            parts.append(_string(value))
        case List():
            _write_list(value, parts, budget)
        case Map():
            _write_map(value, parts, budget)
        case Struct():
            _write_struct(value, parts, budget)
        case Blob():
            budget.make(2 * len(value.data))
            parts.append(f'"{base64.b64encode(value.data).decode()}"')
        case _:
            parts.append(_scalar(value))


def _scalar(value: object) -> str:
    if value is None or value is INVALID:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Byte):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return _float(value)
    raise JSONRefused


def _float(value: float) -> str:
    """Plain digits where numbers have a common size, else an exponent without a leading zero."""
    digits = shortest(value)
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return digits.plain()
    return re.sub(r"e-0(\d)$", r"e-\1", digits.scientific())


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False).translate(_HTML)
    return quoted if quoted.isascii() else _STRAY.sub(r"\\ufffd", quoted)


def _write_list(value: List, parts: list[str], budget: Budget) -> None:
    if value.type.prints is Prints.WORDS and len(value) == 1:
        _write(value[0], parts, budget)
        return
    if value.is_nil:
        parts.append("null")
        return
    parts.append("[")
    for index, each in enumerate(value):
        if index:
            parts.append(",")
        _write(each, parts, budget)
    parts.append("]")


def _write_map(value: Map, parts: list[str], budget: Budget) -> None:
    if value.is_nil:
        parts.append("null")
        return
    parts.append("{")
    for index, key in enumerate(value.keys if value.type.is_sorted else value.entries):
        parts.append(f"{',' if index else ''}{_string(key)}:")
        _write(value.entries[key], parts, budget)
    parts.append("}")


def _write_struct(value: Struct, parts: list[str], budget: Budget) -> None:
    keys = value.type.keys or tuple((name, name, Omit.NEVER) for name in value.fields)
    separator = "{"
    for name, key, omit in keys:
        held = value.fields[name]
        if omit is not Omit.NEVER and (held is None or (omit is Omit.EMPTY and not truth(held))):
            continue
        parts.append(f'{separator}"{key}":')
        separator = ","
        _write(held, parts, budget)
    parts.append("{}" if separator == "{" else "}")
