"""The keywords of JSON Schema that hold plain values: their types, and what of them can be held to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from runtime.errors import FormatInvalid

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
MAX_PATTERN = 512
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_MAX_COUNT = 10**9
_EXACT = 2**53  # beyond, the compiler's arithmetic rounds
_EXACT_FRACTION = 2**20
_NUDGE = 1e-9
_SMALLEST = 1e-4  # below, numbers are spelt with exponents
_UNSPELLABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")  # they would need a \u escape
# what the engine's dialect reads otherwise than JavaScript's: flags, sets of characters with operators
_OTHER_DIALECT = re.compile(r"\(\?(?![:<])|\(\?<[=!]|\[[^\]]*(?:&&|--|~~|\[)|\\[AzZGQE<>]")
_BACK_REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9k]")


def refusal(reason: str) -> FormatInvalid:
    return FormatInvalid(f"invalid format: {reason}")


def is_without_strings(types: Any) -> bool:
    """Whether a schema of `types` never holds for a string; then `format` says nothing (JSON Schema, "format")."""
    return types is not None and "string" not in (types if isinstance(types, list) else [types])


def pattern(key: str, value: Any) -> str:
    """A regular expression. Raises FormatInvalid for what has no equal in the engine, as far as it can be told here."""
    if not isinstance(value, str):
        raise refusal(f'"{key}" must be a string')
    if len(value) > MAX_PATTERN:
        raise refusal(f'"{key}": longer than {MAX_PATTERN} characters')
    if _OTHER_DIALECT.search(value) or _BACK_REFERENCE.search(value):
        raise refusal(f'"{key}": look-around, back references, flags and set operators are not supported')
    return value


def _types(key: str, value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or any(name not in _TYPES for name in names):
        raise refusal(f'"{key}" must be one or several of {", ".join(_TYPES)}')
    return value


def _names(key: str, value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise refusal(f'"{key}" must be an array of strings')
    return value


def _count(key: str, value: Any) -> int:
    number = _number(key, value)
    if not isinstance(number, int) or not 0 <= number <= _MAX_COUNT:
        raise refusal(f'"{key}" must be an integer from 0 to {_MAX_COUNT}')
    return number


def _bound(key: str, value: Any) -> Any:
    if isinstance(value, bool) and key.startswith("exclusive"):  # draft 4
        return value
    return _number(key, value)


def _multiple(key: str, value: Any) -> Any:
    number = _number(key, value)
    if number <= 0:
        raise refusal(f'"{key}" must be above zero')
    return number


def _number(key: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f'"{key}" must be a number')
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal(f'"{key}" must be a number')
    if abs(value) > _EXACT or 0 < abs(value) < _SMALLEST:
        raise refusal(f'"{key}": {json.dumps(value)[:40]} is beyond what can be held to exactly')
    if value != int(value) and abs(value) > _EXACT_FRACTION:
        raise refusal(f'"{key}": {json.dumps(value)[:40]} has more digits than can be held to exactly')
    return int(value) if value == int(value) else value


def settle_bounds(plain: dict[str, Any]) -> None:
    """Exclusive bounds as numbers, whole ones moved inwards by what no answer tells.

    The engine lets 0 pass between an exclusive 0 and 0.5, as it does at each whole number so near to the other bound.
    """
    for inclusive, exclusive, inwards in (
        ("minimum", "exclusiveMinimum", _NUDGE),
        ("maximum", "exclusiveMaximum", -_NUDGE),
    ):
        bound = plain.pop(exclusive, False)
        if bound is True:  # draft 4
            bound = plain.pop(inclusive, False)
        if bound is not False:
            is_near = isinstance(bound, int) and abs(bound) <= _EXACT_FRACTION
            plain[exclusive] = bound + inwards if is_near else bound


def _format(key: str, value: Any) -> str:
    if value not in FORMATS:
        raise refusal(f'"{key}": {json.dumps(value)[:100]} is not supported; these are: {", ".join(FORMATS)}')
    return str(value)


def _constant(key: str, value: Any) -> Any:
    """A literal that the engine can spell, numbers in their shortest form."""
    if isinstance(value, dict):
        return {name: _constant(key, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_constant(key, each) for each in value]
    if isinstance(value, str) and _UNSPELLABLE.search(value):
        raise refusal(f'"{key}": control characters are not supported')
    return value if value is None or isinstance(value, bool | str) else _number(key, value)


def _enum(key: str, value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise refusal(f'"{key}" must be an array of values')
    return _constant(key, value)


_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
READERS: dict[str, Callable[[str, Any], Any]] = {
    "type": _types,
    "required": _names,
    "pattern": pattern,
    "format": _format,
    "multipleOf": _multiple,
    "const": _constant,
    "enum": _enum,
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_BOUNDS, _bound),
}
