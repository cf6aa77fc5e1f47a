"""Floats → text, as Go's strconv writes them. Source: its documentation, "FormatFloat"."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MANTISSA_BITS = 52


@dataclass(frozen=True, slots=True)
class Digits:
    """The shortest decimal that reads back as the same float: sign, 0.digits, times ten to the `point`."""

    sign: str
    digits: str
    point: int

    def plain(self) -> str:
        if self.point <= 0:
            return f"{self.sign}0.{'0' * -self.point}{self.digits}"
        whole = self.digits[: self.point].ljust(self.point, "0")
        rest = self.digits[self.point :]
        return f"{self.sign}{whole}{'.' if rest else ''}{rest}"

    def scientific(self) -> str:
        rest = self.digits[1:]
        return f"{self.sign}{self.digits[0]}{'.' if rest else ''}{rest}e{self.point - 1:+03d}"

    def general(self) -> str:
        return self.plain() if -4 <= self.point - 1 < 6 else self.scientific()


def shortest(value: float) -> Digits:
    """The digits of a finite float."""
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return Digits(sign, "0", 1)
    return Digits(sign, digits, len(whole) - leading + int(exponent or 0))


def format_float(value: float, verb: str, precision: int | None) -> str:
    """`value` by the verb e, f, g, b or x, or their capitals; no precision: as many digits as are needed."""
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if verb == "b":
        return _binary(value)
    if verb in "xX":
        text = _hexadecimal(value, precision)
    elif verb in "gG":
        text = shortest(value).general() if precision is None else f"{value:.{precision}g}"
    else:
        text = f"{value:.{6 if precision is None else precision}{verb.lower()}}"
    return text.upper() if verb.isupper() else text


def _binary(value: float) -> str:
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, exponent = _parts(value)
    return f"{sign}{mantissa}p{exponent - _MANTISSA_BITS:+d}"


def _parts(value: float) -> tuple[int, int]:
    """The 53-bit mantissa and the exponent of its first bit."""
    mantissa, exponent = math.frexp(abs(value))
    if not mantissa or exponent < -1021:  # zero and subnormal numbers have the least exponent, and leading zeros
        return int(math.ldexp(abs(value), 1022 + _MANTISSA_BITS)), -1022
    return int(math.ldexp(mantissa, _MANTISSA_BITS + 1)), exponent - 1


def _hexadecimal(value: float, precision: int | None) -> str:
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, exponent = _parts(value)
    if mantissa:
        shift = _MANTISSA_BITS + 1 - mantissa.bit_length()
        mantissa, exponent = mantissa << shift, exponent - shift
    else:
        exponent = 0
    if precision is not None and precision < _MANTISSA_BITS // 4:
        unit = 1 << (_MANTISSA_BITS - 4 * precision)
        low = mantissa % unit
        mantissa -= low
        if low * 2 > unit or (low * 2 == unit and mantissa // unit % 2):
            mantissa += unit
        if mantissa >> (_MANTISSA_BITS + 1):
            mantissa, exponent = mantissa >> 1, exponent + 1
    digits = f"{mantissa & ((1 << _MANTISSA_BITS) - 1):013x}"
    digits = digits.rstrip("0") if precision is None else digits[:precision].ljust(precision, "0")
    return f"{sign}0x{mantissa >> _MANTISSA_BITS}{'.' if digits else ''}{digits}p{exponent:+03d}"
