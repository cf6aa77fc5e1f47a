"""How staged bytes are cut into parts, and the record of which bytes lie where. Nothing here talks to a store.

Parts of a multipart upload cannot be read before it is completed. So the bytes that are not a whole part yet lie beside
it, as small objects of their own: pieces. One is kept for as long as the session may step back to where it is needed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final, Self

from storage.errors import KeyUnknown, StorageUnavailable

BLOCK_BYTES: Final = 8 * 2**20  # of memory, see `Blocks`; no piece is larger
MAX_PARTS: Final = 10_000  # of the S3 protocol, as are 5 MiB to 5 GiB for every part but the last
_SIZES: Final = (  # up to this number, parts of this size: 12 TiB in all, and most models in parts that memory holds
    (4_000, BLOCK_BYTES),
    (5_000, 64 * 2**20),
    (6_000, 256 * 2**20),
    (MAX_PARTS, 3 * 2**30),
)


def part_size(number: int) -> int:
    """The size in bytes of the part with this number, which grows with it. Raises KeyUnknown beyond the last one."""
    for last, size in _SIZES:
        if number <= last:
            return size
    raise KeyUnknown("the upload has no part number left; begin again", number=number)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end` of what is staged, uploaded for good."""

    number: int
    start: int
    size: int
    etag: str

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `end`, in an object beside. `size` may be less than the object has."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(slots=True)
class Staged:
    """What is staged: parts without a gap, then pieces without a gap. Also older pieces, which the parts include.

    starts: where the last two appends began. synced: what was durable after the last three syncs: the row may tell of
    the one before the last, where it could not be written, and one more follows at the end. A session steps back to one
    of these, and to nothing else.
    """

    upload: str | None = None
    parts: list[Part] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)

    @property
    def uploaded(self) -> int:
        """How many bytes are in parts."""
        return self.parts[-1].end if self.parts else 0

    @property
    def is_begun(self) -> bool:
        """Whether there is anything that a record has to tell."""
        return self.upload is not None or bool(self.pieces)

    @property
    def tail(self) -> list[Piece]:
        uploaded = self.uploaded
        return [piece for piece in self.pieces if piece.start >= uploaded]

    @property
    def end(self) -> int:
        return max(self.uploaded, self.pieces[-1].end if self.pieces else 0)

    def cut(self, at: int) -> Staged:
        """The same up to `at`. Raises KeyUnknown if less was kept, or the part that `at` is in cannot be undone."""
        parts = self.parts[: bisect_right(self.parts, at, key=lambda part: part.end)]
        reached = uploaded = parts[-1].end if parts else 0
        pieces = list[Piece]()
        for piece in self.pieces:
            if piece.end <= uploaded:
                pieces.append(piece)
            elif piece.start == reached < at:
                pieces.append(Piece(piece.name, piece.start, min(piece.size, at - piece.start)))
                reached = pieces[-1].end
        if reached != at:
            raise KeyUnknown("staged bytes are gone", at=at, kept=reached)
        starts, synced = ([mark for mark in marks if mark <= at] for marks in (self.starts, self.synced))
        return Staged(self.upload, parts, pieces, starts, synced)

    def begin(self) -> None:
        """An append begins here."""
        self.starts = [*self.starts[-1:], self.end]

    def sync(self, at: int | None = None) -> None:
        """What comes before `at`, or all of it, is about to be durable."""
        self.synced = [*self.synced[-2:], self.end if at is None else at]

    def drop_unneeded(self) -> list[Piece]:
        """Forget the pieces to which no step back leads; these pieces."""
        needed, dropped = list[Piece](), list[Piece]()
        marks = {*self.starts, *self.synced}
        for piece in self.pieces:
            (needed if self._is_needed(piece, marks) else dropped).append(piece)
        self.pieces = needed
        return dropped

    def _is_needed(self, piece: Piece, marks: set[int]) -> bool:
        if piece.start >= self.uploaded:
            return True
        part = self.parts[bisect_right(self.parts, piece.start, key=lambda part: part.end)]
        return any(part.start < mark < part.end and piece.start < mark for mark in marks)

    def to_json(self) -> bytes:
        body = {
            "upload": self.upload,
            "parts": [(part.number, part.start, part.size, part.etag) for part in self.parts],
            "pieces": [(piece.name, piece.start, piece.size) for piece in self.pieces],
            "starts": self.starts,
            "synced": self.synced,
        }
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The inverse of `to_json`. Raises StorageUnavailable for what it did not write."""
        try:
            body = json.loads(data)
            parts, pieces = [Part(*each) for each in body["parts"]], [Piece(*each) for each in body["pieces"]]
            return cls(body["upload"], parts, pieces, body["starts"], body["synced"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable("the record of staged bytes cannot be read") from error
