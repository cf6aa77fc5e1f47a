"""What we have sent of a blob, to compare it with what arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from storage.digest import Digest, Hasher

_ALGORITHM: Final = "sha256"

Read = Callable[[int, int], Iterator[bytes]]  # (start, length) → those bytes of the blob


class OwnBytes:
    """sha256 of a blob's beginning, computed while its parts are read to be sent.

    The sums at both ends of the last part are remembered: it can be sent again without reading what is before it.
    """

    def __init__(self, read: Read, beat: Callable[[], None]) -> None:
        """beat: called while bytes are read for the sum alone; may raise to end it."""
        self._read, self._beat = read, beat
        self._marks = {0: Hasher((_ALGORITHM,)).states()}  # by the number of bytes
        self.last_part: tuple[int, int] | None = None  # start and length

    def part(self, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a part as they are sent."""
        states = self._states_at(start)
        self._marks = {0: self._marks[0], start: states}
        self.last_part = start, length
        hasher = Hasher.resume(states)
        for piece in self._read(start, length):
            hasher.update(piece)  # here, while it is in the cache: another thread would cost half as much again
            yield piece
        self._marks[start + length] = hasher.states()

    def digest(self, size: int) -> Digest:
        """Of the blob's first `size` bytes."""
        return Hasher.resume(self._states_at(size)).digests()[_ALGORITHM]

    def _states_at(self, size: int) -> dict[str, str]:
        known = max(at for at in self._marks if at <= size)
        if known < size:
            hasher = Hasher.resume(self._marks[known])
            for piece in self._read(known, size - known):
                hasher.update(piece)
                self._beat()
            self._marks[size] = hasher.states()
        return self._marks[size]
