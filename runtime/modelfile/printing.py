"""Values as text: what a Modelfile line says of them, and how Go would write them.

Source: the Ollama API, "Text of /api/show modelfile" and "Text of /api/show parameters".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from runtime.modelfile.grammar import ROLES

_KEY = re.compile(r"[A-Za-z0-9_]+")
_MUST_QUOTE = re.compile(r"[\r\n]|^[ \t\"]|[ \t]$")
_MOST_DIGITS: Final = 10**15  # whole numbers that a double tells apart, and that nobody needs an exponent for
_ESCAPES: Final = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
                   '"': r"\"", "\\": r"\\"}  # fmt: skip


def value(text: str) -> str:
    """`text` as the value of a command: bare, and in quotes where bare it would be read as something else.

    The grammar has no escapes: a text that prints and has no line, but the last, that ends with three quotes comes
    back as it is.
    """
    if not _MUST_QUOTE.search(text):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def parameter_lines(params: Mapping[str, object]) -> list[str]:
    """A PARAMETER line for each value. Numbers without an exponent: that of an integer would not be read again."""
    return [f"PARAMETER {key} {value(_readable(each))}" for key, each in each_value(params) if _KEY.fullmatch(key)]


def message_lines(messages: tuple[Mapping[str, str], ...]) -> list[str]:
    """A MESSAGE line for each that the grammar has a role for."""
    return [f"MESSAGE {each['role']} {value(each['content'])}" for each in messages if each["role"] in ROLES]


def each_value(params: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Name and value, sorted by name; a list gives one pair an item, what is null none."""
    for key in sorted(params):
        held = params[key]
        yield from ((key, item) for item in (held if isinstance(held, list) else [held]) if item is not None)


def go_syntax(item: object) -> str:
    """As Go source would have it: texts in quotes, numbers and booleans plain."""
    return _quoted(item) if isinstance(item, str) else _plain(item)


def _readable(item: object) -> str:
    if isinstance(item, float) and item.is_integer() and abs(item) < _MOST_DIGITS:
        item = int(item)
    return str(item) if isinstance(item, str | int) and not isinstance(item, bool) else _plain(item)


def _plain(item: object) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int | float):
        return _number(item)
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escape(char)) for char in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _number(item: float) -> str:
    """As Go prints a float64, which every JSON number is to it: the fewest digits, an exponent from a million on."""
    try:
        number = Decimal(repr(float(item)))
    except OverflowError:  # an integer of hundreds of digits
        return "0"
    if number.is_zero() or not number.is_finite():
        return "0"
    exponent = number.adjusted()
    if -4 <= exponent < 6:
        return f"{number.normalize():f}"
    digits = f"{number.scaleb(-exponent).normalize():f}"
    return f"{digits}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
