"""What one request of an upload sends: a body, and where in the blob it belongs. Spec: "Pushing a blob in chunks"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import ChunkOutOfOrder, SizeInvalid


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """First and last byte of a chunk, both inclusive, as in an upload's `Content-Range`. Raises ChunkOutOfOrder."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < 2**63:
            raise ChunkOutOfOrder("not a range", first=self.first, last=self.last)

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class Body:
    """The body of one request, and what its headers say of it. Raises SizeInvalid when they contradict each other."""

    def __init__(
        self, stream: BinaryIO, chunk: ChunkRange | None, length: int | None, *, may_repeat: bool, offset: int
    ) -> None:
        if chunk is not None and length is not None and chunk.size != length:
            raise SizeInvalid("the body is not as long as its range", offset=offset)
        self.stream = stream
        self.chunk = chunk
        self.size = length if chunk is None else chunk.size
        self.is_announced = length is not None
        self.may_repeat = may_repeat
