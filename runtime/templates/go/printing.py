"""Values → text by one verb and its flags, as Go's fmt does. Source: its documentation, "Printing".

Mistakes of a template are printed, not raised: `%!d(string=x)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.templates.go import quoting
from runtime.templates.go.budget import Budget
from runtime.templates.go.json_form import JSONRefused, json_form
from runtime.templates.go.numbers import format_float
from runtime.templates.go.values import (
    INVALID,
    Blob,
    Byte,
    List,
    Map,
    Prints,
    Struct,
    canonical,
    encoded,
    type_name,
)

_STRINGABLE = frozenset("vsxXq")
_MAX_RUNE = 0x10FFFF
_POINTER = "0xc000010000"  # no template can make use of an address: all are the same


@dataclass(slots=True)
class Flags:
    """Of one verb: `%-+# 0`, width and precision; `go` and `names` are what # and + become before v."""

    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None
    go: bool = False
    names: bool = False


def sprint(values: list[object], budget: Budget) -> str:
    """With a space between two values of which none is a string."""
    printer = Printer(budget)
    was_text = True
    for index, value in enumerate(values):
        is_text = isinstance(value, str)
        if index and not is_text and not was_text:
            printer.write(" ")
        printer.print(value, "v")
        was_text = is_text
    return printer.text()


def text_of(value: List | Map | Struct, budget: Budget) -> str | None:
    """What a value with a text form of its own is printed as; None for the others."""
    kind = value.type
    if kind.prints is Prints.DEFAULT:
        return None
    if isinstance(value, List) and kind.prints is Prints.WORDS:
        words = [str(each) for each in value]
        return words[0] if len(words) == 1 else f"[{' '.join(words)}]" if words else ""
    if isinstance(value, Map) and value.is_nil:
        return kind.nil_text
    try:
        return json_form(value, budget)
    except JSONRefused:
        return ""


class Printer:
    """Collects text; `flags` are those of the verb being printed."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._parts: list[str] = []
        self._is_complaining = False
        self.flags = Flags()

    def text(self) -> str:
        return canonical("".join(self._parts))

    def write(self, text: str) -> None:
        self._budget.make(len(text) if text.isascii() else 4 * len(text))
        self._parts.append(text)

    def print(self, value: object, verb: str, depth: int = 0) -> None:
        """`value` by `verb`; depth: how many lists, maps and structs it is in."""
        self._budget.charge()
        if verb == "T" and not depth:
            if _is_none(value):
                self._pad("<nil>")
            else:
                self._pad_text(type_name(value))
        elif verb == "p" and not depth:
            self._print_pointer(value)
        elif _is_none(value):
            self._print_nil(verb, depth)
        elif isinstance(value, List | Map | Struct | Blob):
            self._print_composite(value, verb, depth)
        elif isinstance(value, str):
            self._print_text(value, verb)
        else:
            self._print_number(value, verb)

    def complain(self, value: object, verb: str) -> None:
        """`%!d(string=x)`: the verb does not go with the value."""
        self.write(f"%!{verb}(")
        self._is_complaining = True
        if _is_none(value):
            self.write("<nil>")
        else:
            self.write(f"{type_name(value)}=")
            self.print(value, "v")
        self._is_complaining = False
        self.write(")")

    def _print_pointer(self, value: object) -> None:
        if isinstance(value, List | Map | Blob):
            self.write(_POINTER)
        else:
            self.complain(value, "p")

    def _print_nil(self, verb: str, depth: int) -> None:
        if depth:
            self.write("interface {}(nil)" if self.flags.go else "<nil>")
        elif verb == "v":
            self._pad("<nil>")
        else:
            self.complain(None, verb)

    def _print_number(self, value: object, verb: str) -> None:
        if isinstance(value, bool):
            if verb in "tv":
                self._pad("true" if value else "false")
            else:
                self.complain(value, verb)
        elif isinstance(value, int):
            self._print_int(value, verb)
        elif isinstance(value, float):
            if verb in "vbgGxXfFeE":
                self._print_float(value, verb)
            else:
                self.complain(value, verb)
        elif isinstance(value, complex):
            self._print_complex(value, verb)

    # text

    def _print_text(self, text: str, verb: str) -> None:
        if verb == "q" or (verb == "v" and self.flags.go):
            self._print_quoted(text)
        elif verb in "vs":
            self._pad_text(text)
        elif verb in "xX":
            self._print_hexadecimal(encoded(text), verb)
        else:
            self.complain(text, verb)

    def _pad_text(self, text: str) -> None:
        self._pad(text if self.flags.precision is None else text[: self.flags.precision])

    def _print_quoted(self, text: str) -> None:
        if self.flags.precision is not None:
            text = text[: self.flags.precision]
        self._budget.make(16 * len(text))  # of which most is time: character by character
        if self.flags.sharp and quoting.can_be_raw(text):
            self._pad(f"`{text}`")
        else:
            self._pad(quoting.quoted(text, is_ascii=self.flags.plus))

    def _print_hexadecimal(self, data: bytes, verb: str) -> None:
        flags = self.flags
        data = data if flags.precision is None else data[: flags.precision]
        self._budget.make(5 * len(data))
        digits = data.hex(" ") if flags.space and data else data.hex()
        if flags.sharp and digits:
            digits = "0x" + (digits.replace(" ", " 0x") if flags.space else digits)
        self._pad(digits.upper() if verb == "X" else digits)

    def _pad(self, text: str) -> None:
        """Write `text`, filled up to the width."""
        missing = (self.flags.width or 0) - len(text)
        if missing <= 0:
            self.write(text)
        elif self.flags.minus:
            self.write(text + " " * missing)
        else:
            self.write(("0" if self.flags.zero else " ") * missing + text)

    def _pad_with_spaces(self, text: str) -> None:
        zero, self.flags.zero = self.flags.zero, False
        self._pad(text)
        self.flags.zero = zero

    # numbers

    def _print_int(self, value: int, verb: str) -> None:
        bases = {"d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X", "v": "d"}
        if verb in bases:
            is_byte_in_go = verb == "v" and self.flags.go and isinstance(value, Byte)
            self._pad_with_spaces(f"0x{value:x}" if is_byte_in_go else self._digits(int(value), verb, bases[verb]))
        elif verb == "c":
            self._pad(_rune(value))
        elif verb == "q":
            self._pad(quoting.quoted(_rune(value), "'", is_ascii=self.flags.plus))
        elif verb == "U":
            self._print_unicode(value)
        else:
            self.complain(value, verb)

    def _digits(self, value: int, verb: str, base: str) -> str:
        flags = self.flags
        if flags.precision == 0 and value == 0:
            return ""
        sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
        least = flags.precision or 0
        if flags.precision is None and flags.zero and not flags.minus and flags.width is not None:
            least = flags.width - len(sign)
        digits = format(abs(value), base).rjust(least, "0")
        if flags.sharp:
            prefix = {"b": "0b", "x": "0x", "X": "0X"}.get(base, "")
            digits = "0" + digits if base == "o" and not digits.startswith("0") else prefix + digits
        return f"{sign}{'0o' if verb == 'O' else ''}{digits}"

    def _print_unicode(self, value: int) -> None:
        code = value % 2**64
        text = "U+" + format(code, "X").rjust(max(4, self.flags.precision or 0), "0")
        if self.flags.sharp and code <= _MAX_RUNE and chr(code).isprintable():
            text += f" '{chr(code)}'"
        self._pad_with_spaces(text)

    def _print_float(self, value: float, verb: str) -> None:
        flags = self.flags
        self._budget.make(8 * (flags.precision or 0))  # of which most is time: digit by digit
        text = format_float(value, "g" if verb == "v" else "f" if verb == "F" else verb, flags.precision)
        sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("+", text)
        if sign == "+" and flags.space and not flags.plus:
            sign = " "
        if digits in ("Inf", "NaN"):
            self._pad_with_spaces(digits if digits == "NaN" and not (flags.space or flags.plus) else sign + digits)
            return
        if flags.sharp and verb != "b":
            digits = _with_point(digits, verb, flags.precision)
        if not flags.plus and sign == "+":
            self._pad(digits)
        elif flags.zero and not flags.minus and flags.width is not None:
            self.write(sign + digits.rjust(flags.width - 1, "0"))
        else:
            self._pad(sign + digits)

    def _print_complex(self, value: complex, verb: str) -> None:
        if verb not in "vbgGxXfFeE":
            self.complain(value, verb)
            return
        plus = self.flags.plus
        self.write("(")
        self._print_float(value.real, verb)
        self.flags.plus = True
        self._print_float(value.imag, verb)
        self.write("i)")
        self.flags.plus = plus

    # lists, maps and structs

    def _print_composite(self, value: List | Map | Struct | Blob, verb: str, depth: int) -> None:
        if isinstance(value, Blob):
            self._print_bytes(value.data, verb, depth)
            return
        if verb == "w" and not self._is_complaining:
            self.complain(value, verb)
            return
        if verb in _STRINGABLE and not self.flags.go and not self._is_complaining:
            text = text_of(value, self._budget)
            if text is not None:
                self._print_text(text, verb)
                return
        self._print_parts(value, verb, depth)

    def _print_parts(self, value: List | Map | Struct, verb: str, depth: int) -> None:
        flags = self.flags
        if flags.go and isinstance(value, List | Map) and value.is_nil:
            self.write(f"{type_name(value)}(nil)")
            return
        names = isinstance(value, Map) or (isinstance(value, Struct) and (flags.go or flags.names))
        opening = "[" if isinstance(value, List) else "map[" if isinstance(value, Map) else "{"
        self.write(f"{type_name(value)}{{" if flags.go else opening)
        for index, (name, each) in enumerate(_parts(value)):
            if index:
                self.write(", " if flags.go else " ")
            if isinstance(value, Map):
                self.print(name, verb, depth + 1)
            elif names:
                self.write(name)
            if names:
                self.write(":")
            self.print(each, verb, depth + 1)
        self.write("}" if flags.go or isinstance(value, Struct) else "]")

    def _print_bytes(self, data: bytes, verb: str, depth: int) -> None:
        if verb in "sqxX":
            self._print_text(data.decode("utf-8", "surrogateescape"), verb)
            return
        self.write("api.ImageData{" if self.flags.go else "[")
        for index, each in enumerate(data):
            if index:
                self.write(", " if self.flags.go else " ")
            self.print(Byte(each), verb, depth + 1)
        self.write("}" if self.flags.go else "]")


def _parts(value: List | Map | Struct) -> list[tuple[str, object]]:
    if isinstance(value, List):
        return [("", each) for each in value]
    if isinstance(value, Map):
        return [(key, value.entries[key]) for key in value.keys]
    return list(value.fields.items())


def _is_none(value: object) -> bool:
    return value is None or value is INVALID


def _rune(value: int) -> str:
    return chr(value) if 0 <= value <= _MAX_RUNE and not 0xD800 <= value <= 0xDFFF else "\ufffd"


def _with_point(digits: str, verb: str, precision: int | None) -> str:
    """What # adds to a float: a decimal point, and the zeros that %g leaves out."""
    wanted = (6 if precision is None else precision) if verb in "vgGx" else 0
    end = next((at for at, each in enumerate(digits) if each in ("pP" if verb in "xX" else "eEpP")), len(digits))
    mantissa, tail = digits[:end], digits[end:]
    significant = mantissa.replace(".", "").lstrip("0")
    wanted -= len(significant)
    if "." not in mantissa:
        wanted -= mantissa == "0"
        mantissa += "."
    return mantissa + "0" * max(wanted, 0) + tail
