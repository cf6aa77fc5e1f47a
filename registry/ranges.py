"""Byte ranges of blob downloads and of upload chunks. Spec: "Pulling blobs", RFC 9110 "Range Requests"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import RangeInvalid

_DIGITS_MAX = 19  # 2**63 has 19 digits
_SPEC = re.compile(rf"(\d{{0,{_DIGITS_MAX}}})-(\d{{0,{_DIGITS_MAX}}})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last` of a blob, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range of `header` within `size` bytes; None to send the whole blob.

    Another unit, several ranges and text that is no range are answered with the whole blob, as RFC 9110 allows; a
    range whose end lies before its start is refused, as the conformance suite wants. Raises RangeInvalid.
    """
    if header is None:
        return None
    unit, equals, spec = header.partition("=")
    match = _SPEC.fullmatch(spec.strip())
    if unit.strip().lower() != "bytes" or not equals or match is None or match[0] == "-":
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise RangeInvalid("no byte of the blob lies in the range", range=header, size=size)
        return ByteRange(size - length, size - 1)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if first >= size or last < first:
        raise RangeInvalid("no byte of the blob lies in the range", range=header, size=size)
    return ByteRange(first, last)
