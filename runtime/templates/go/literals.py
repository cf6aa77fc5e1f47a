"""Constants of a template → values. Source: Go specification, "Integer literals" to "String literals"."""

from __future__ import annotations

import contextlib
import math
import re

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1

_INTEGER = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<binary>(?:_?[01])+)"
    r"|0[oO]?(?P<octal>(?:_?[0-7])+)|(?P<decimal>0|[1-9](?:_?[0-9])*))"
)
_BASES = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+")
_STRAY_UNDERSCORE = re.compile(r"(?<![0-9a-fA-FxX])_|_(?![0-9a-fA-F])")
_COMPLEX = re.compile(r"(.*[^eEpP])([+-].+)i")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|())")
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_MAX_DIGITS = 4096  # nothing longer is in range; Python's own limit lies just above


def number(text: str) -> int | float | complex | None:
    """A number constant; None is an integer between the greatest int and the greatest uint. Raises ValueError."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"illegal number syntax: {text[:20]}…")
    if text.endswith("i"):
        return complex(0, _float(text[:-1]))
    whole = _integer(text)
    looks_float = any(each in text for each in ".eEpP")
    if whole is None:
        value = _float(text)
        if not looks_float:
            raise ValueError(f"integer overflow: {text}")
        return value
    is_hexadecimal = text[:2] in ("0x", "0X") and not any(each in text for each in "pP")
    if looks_float and not is_hexadecimal:  # -0x1E, of all things: a sign before it makes Go see an exponent
        return float(whole)
    return whole if INT_MIN <= whole <= INT_MAX else None


def complex_number(text: str) -> complex:
    """`1+2i`. Raises ValueError."""
    parts = _COMPLEX.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if not parts:
        raise ValueError(f"illegal number syntax: {text[:20]}")
    return complex(_float(parts[1]), _float(parts[2]))


def _integer(text: str) -> int | None:
    found = _INTEGER.fullmatch(text)
    if not found:
        return None
    name, digits = next((name, found[name]) for name in _BASES if found[name] is not None)
    value = int(digits.lstrip("_"), _BASES[name])
    if found["sign"]:
        value = -value if found["sign"] == "-" else value
        return value if INT_MIN <= value <= INT_MAX else None
    return value if value <= UINT_MAX else None


def _float(text: str) -> float:
    plain = text if _STRAY_UNDERSCORE.search(text) else text.replace("_", "")
    value = math.inf
    if _HEXADECIMAL.fullmatch(plain):
        with contextlib.suppress(OverflowError):
            value = float.fromhex(plain)
    elif _DECIMAL.fullmatch(plain):
        value = float(plain)
    if math.isinf(value):
        raise ValueError(f"illegal number syntax: {text}")
    return value


def character(text: str) -> int:
    """The number of a character constant, quotes included. Raises ValueError."""
    inside = unescaped(text[1:-1], "'", whole=False)
    if len(inside) != 1:
        raise ValueError(f"malformed character constant: {text}")
    code = ord(inside)
    return code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code


def string(text: str) -> str:
    """What a quoted or raw string constant, quotes included, stands for. Raises ValueError."""
    if text.startswith("`"):
        return text[1:-1].replace("\r", "")
    return unescaped(text[1:-1], '"', whole=True)


def unescaped(text: str, quote: str, *, whole: bool) -> str:
    """`text` with its escapes replaced; bytes become lone surrogates, which `whole` joins where they are UTF-8."""
    if "\\" not in text:
        return text
    values = _ESCAPE.sub(lambda found: _unescape(found, quote), text)
    return values.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") if whole else values


def _unescape(found: re.Match[str], quote: str) -> str:
    letter, octal, byte, short, long, _ = found.groups()
    if letter is not None:
        if letter in "'\"" and letter != quote:
            raise ValueError("invalid syntax")
        return _LETTERS.get(letter, letter)
    if octal is not None or byte is not None:
        value = int(octal, 8) if octal is not None else int(byte, 16)
        if value > 0xFF:
            raise ValueError("invalid syntax")
        return chr(value) if value < 0x80 else chr(0xDC00 + value)
    if short is None and long is None:
        raise ValueError("invalid syntax")
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid syntax")
    return chr(code)
