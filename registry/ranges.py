"""Byte ranges of blob downloads and of upload chunks. Spec: "Pulling blobs", RFC 9110 "Range Requests"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from registry.errors import RangeInvalid

_DIGITS_MAX = 19  # 2**63 has 19 digits; a longer number lies beyond every blob
MAX_RANGES = 16  # parts in one answer
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last` of a blob, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def parse_ranges(header: str | None, size: int) -> Sequence[ByteRange]:
    """The ranges of `header` within `size` bytes, joined where they touch; empty to send the whole blob.

    Another unit, text that is no range, very many ranges, and ranges that would send some bytes twice over are answered
    with the whole blob, as RFC 9110 allows; a range whose end lies before its start is refused, as the conformance
    suite wants. Raises RangeInvalid when no range has a byte.
    """
    unit, _, listed = (header or "").partition("=")
    specs = [spec.strip() for spec in listed.split(",")]
    matches = [match for spec in specs if spec and (match := _SPEC.fullmatch(spec)) and match[0] != "-"]
    if unit.strip().lower() != "bytes" or not matches or len(matches) < sum(map(bool, specs)):
        return ()
    found = [wanted for match in matches if (wanted := _within(match[1], match[2], size)) is not None]
    if not found:
        raise RangeInvalid("no byte of the blob lies in the range", range=listed[:256], size=size)
    joined = _joined(found)
    is_excessive = len(joined) > MAX_RANGES or sum(wanted.size for wanted in found) > size
    return () if is_excessive else joined


def _within(first: str, last: str, size: int) -> ByteRange | None:
    """One range as far as it lies in the blob; None when no byte does."""
    if not first:
        wanted = ByteRange(max(size - _number(last), 0), size - 1)
    else:
        wanted = ByteRange(_number(first), min(_number(last), size - 1) if last else size - 1)
    return wanted if wanted.size > 0 else None


def _number(digits: str) -> int:
    """Of any length: Python itself refuses thousands of digits."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _DIGITS_MAX else 2**63


def _joined(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """Ranges that overlap or touch made one, in the order in which the first of each was asked for."""
    joined: list[tuple[int, ByteRange]] = []
    for place, wanted in sorted(enumerate(ranges), key=lambda each: each[1].first):
        if joined and wanted.first <= joined[-1][1].last + 1:
            before, other = joined[-1]
            joined[-1] = (min(before, place), ByteRange(other.first, max(other.last, wanted.last)))
        else:
            joined.append((place, wanted))
    return [wanted for _, wanted in sorted(joined, key=lambda each: each[0])]
