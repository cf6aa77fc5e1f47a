"""Several ranges of one blob in one body. Spec: RFC 9110 "Media Type multipart/byteranges"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import BinaryIO

from registry.ranges import ByteRange

_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Multipart:
    """The parts of a body that is told in full before its first byte is sent."""

    ranges: Sequence[ByteRange]
    heads: Sequence[bytes]
    end: bytes
    content_type: str

    @classmethod
    def of(cls, ranges: Sequence[ByteRange], size: int, part_type: str) -> Multipart:
        """The body that carries `ranges` of a blob of `size` bytes."""
        boundary = token_hex(16)  # random: no blob can be made to contain it
        heads = [
            f"\r\n--{boundary}\r\nContent-Type: {part_type}\r\n"
            f"Content-Range: bytes {wanted.first}-{wanted.last}/{size}\r\n\r\n".encode()
            for wanted in ranges
        ]
        end = f"\r\n--{boundary}--\r\n".encode()
        return cls(ranges, heads, end, f"multipart/byteranges; boundary={boundary}")

    @property
    def size(self) -> int:
        return sum(map(len, self.heads)) + sum(wanted.size for wanted in self.ranges) + len(self.end)

    def stream(self, file: BinaryIO) -> Iterator[bytes]:
        """The body, a piece of `file` at a time; closes it at the end."""
        with file:
            for head, wanted in zip(self.heads, self.ranges, strict=True):
                yield head
                file.seek(wanted.first)
                left = wanted.size
                while left > 0 and (piece := file.read(min(_READ_BYTES, left))):
                    left -= len(piece)
                    yield piece
                if left:
                    return  # the server sees a body that is too short and drops the connection
            yield self.end
