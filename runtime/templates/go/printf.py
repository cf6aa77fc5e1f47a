"""The format strings of printf. Source: Go's documentation of fmt, "Printing", "Format errors"."""

from __future__ import annotations

import re

from runtime.templates.go.budget import MAX_WIDTH, Budget, Exhausted
from runtime.templates.go.printing import Flags, Printer
from runtime.templates.go.values import INVALID, type_name

_TEXT = re.compile(r"[^%]*")
_FLAGS = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}


def sprintf(template: str, values: list[object], budget: Budget) -> str:
    return _Formatter(template, values, budget).format()


class _Formatter:
    """Walks a format string; `_at` is the next character of it, `_argument` the next value."""

    def __init__(self, template: str, values: list[object], budget: Budget) -> None:
        self._template = template
        self._values = values
        self._budget = budget
        self._printer = Printer(budget)
        self._at = 0
        self._argument = 0
        self._is_reordered = False  # then nobody counts what is left over
        self._is_number_good = True
        self._follows_number = False

    def format(self) -> str:
        while True:
            text = _TEXT.match(self._template, self._at)
            assert text is not None
            self._printer.write(text[0])
            self._at = text.end() + 1
            if self._at > len(self._template):
                break
            self._budget.charge(3)
            self._verb()
        if not self._is_reordered and self._argument < len(self._values):
            self._extra()
        return self._printer.text()

    def _verb(self) -> None:
        flags = self._printer.flags = Flags()
        self._is_number_good = True
        while (char := self._peek()) in _FLAGS:
            setattr(flags, _FLAGS[char], True)
            self._at += 1
        if not ("a" <= char <= "z" and self._argument < len(self._values)):
            self._numbers(flags)
        verb = self._peek()
        if not verb:
            self._printer.write("%!(NOVERB)")
            return
        self._at += 1
        self._print(verb, flags)

    def _print(self, verb: str, flags: Flags) -> None:
        if verb == "%":
            self._printer.write("%")
        elif not self._is_number_good:
            self._printer.write(f"%!{verb}(BADINDEX)")
        elif self._argument >= len(self._values):
            self._printer.write(f"%!{verb}(MISSING)")
        else:
            if verb in "vw":
                flags.go, flags.sharp = flags.sharp, False
                flags.names, flags.plus = flags.plus, False
            value = self._values[self._argument]
            self._argument += 1
            self._printer.print(value, verb)

    def _numbers(self, flags: Flags) -> None:
        """Argument number, width, precision."""
        self._follows_number = self._argument_number()
        if self._peek() == "*":
            self._at += 1
            width = self._star()
            if width is None:
                self._printer.write("%!(BADWIDTH)")
            elif width < 0:
                flags.minus, flags.zero = True, False
            flags.width = None if width is None else abs(width)
            self._follows_number = False
        else:
            flags.width = self._digits(len(self._template))
            if self._follows_number and flags.width is not None:
                self._is_number_good = False
        if self._peek() == "." and self._at + 1 < len(self._template):
            self._at += 1
            self._precision(flags)
        if not self._follows_number:
            self._follows_number = self._argument_number()

    def _precision(self, flags: Flags) -> None:
        if self._follows_number:
            self._is_number_good = False
        self._follows_number = self._argument_number()
        if self._peek() != "*":
            flags.precision = self._digits(len(self._template)) or 0
            return
        self._at += 1
        precision = self._star()
        flags.precision = precision if precision is None or precision >= 0 else None
        if flags.precision is None:
            self._printer.write("%!(BADPREC)")
        self._follows_number = False

    def _peek(self) -> str:
        return self._template[self._at : self._at + 1]

    def _digits(self, end: int) -> int | None:
        """The number at `_at`. One that is far too long swallows everything up to `end`."""
        start, value = self._at, 0
        while self._at < end and "0" <= (char := self._template[self._at]) <= "9":
            if value > MAX_WIDTH:
                self._at = end
                return None
            value = value * 10 + int(char)
            self._at += 1
        if value > MAX_WIDTH:
            raise Exhausted(f"a width of printf is larger than {MAX_WIDTH}")
        return value if self._at > start else None

    def _star(self) -> int | None:
        """A width or precision that is an argument; None when that is no integer of a sensible size."""
        if self._argument >= len(self._values):
            return None
        value = self._values[self._argument]
        self._argument += 1
        is_width = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WIDTH
        return int(value) if is_width and isinstance(value, int) else None

    def _argument_number(self) -> bool:
        """Read `[n]`, if it is there: the value to go on with. Whether there was a number in brackets."""
        if self._peek() != "[":
            return False
        self._is_reordered = True
        start = self._at
        closing = self._template.find("]", start + 1)
        self._budget.read((closing if closing >= 0 else len(self._template)) - start)
        if closing < 0 or len(self._template) - start < 3:
            self._at, self._is_number_good = start + 1, False
            return False
        self._at = start + 1
        number = self._index(closing)
        self._at = closing + 1
        if number is not None and 0 < number <= len(self._values):
            self._argument = number - 1
            return True
        self._is_number_good = False
        return number is not None

    def _index(self, closing: int) -> int | None:
        number = self._template[self._at : closing]
        is_number = number.isascii() and number.isdigit() and len(number.lstrip("0")) <= len(str(MAX_WIDTH))
        return int(number) if is_number else None

    def _extra(self) -> None:
        self._printer.flags = Flags()
        self._printer.write("%!(EXTRA ")
        for index, value in enumerate(self._values[self._argument :]):
            if index:
                self._printer.write(", ")
            if value is None or value is INVALID:
                self._printer.write("<nil>")
            else:
                self._printer.write(f"{type_name(value)}=")
                self._printer.print(value, "v")
        self._printer.write(")")
