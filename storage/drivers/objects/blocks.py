"""The memory that all writers of a process share: so many blocks, whoever has them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, Protocol

from storage.errors import StorageUnavailable

_WAIT_S: Final = 60.0  # each part ahead of us is sent, or given up by the door to the store, long before
_STILL_S: Final = 1.0


class Filler(Protocol):
    """Whoever is filling a block."""

    def give_way(self) -> None:
        """Save what the block holds and give it back, unless somebody is at work on it right now."""


class Blocks:
    """At most `count` blocks of `size` bytes, made when they are first needed and then used again.

    Who finds none waits in turn: for those that are on their way to the store, and for those whose filler stands still,
    because its client does. The latter has to give way to the first who waits, so a slow client keeps nobody waiting.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._to_make = count
        self._free: list[bytearray] = []
        self._filling: dict[Filler, float] = {}  # since when it stands still
        self._queue: deque[Filler] = deque()
        self._changed = threading.Condition()

    def take(self, filler: Filler) -> bytearray:
        """A block to fill, of any content. Raises StorageUnavailable where none comes free for a minute."""
        deadline = time.monotonic() + _WAIT_S
        with self._changed:
            self._queue.append(filler)
        try:
            while (block := self._next(filler)) is None:
                if time.monotonic() > deadline:
                    raise StorageUnavailable("as many bytes as the node may hold are on their way to the object store")
                if (still := self._longest_still(filler)) is not None:
                    still.give_way()
            return block
        finally:
            with self._changed:
                self._queue.remove(filler)
                self._changed.notify_all()

    def touch(self, filler: Filler) -> None:
        """It does not stand still."""
        with self._changed:
            if filler in self._filling:
                self._filling[filler] = time.monotonic()

    def fill_no_more(self, filler: Filler) -> None:
        """Its block is full; it has it still."""
        with self._changed:
            self._filling.pop(filler, None)

    def give(self, block: bytearray) -> None:
        with self._changed:
            self._free.append(block)
            self._changed.notify_all()

    def _next(self, filler: Filler) -> bytearray | None:
        """Wait a moment for our turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_turn_of(filler), _STILL_S)
            if not self._is_turn_of(filler):
                return None
            if not self._free:
                self._to_make -= 1
                self._free.append(bytearray(self.size))
            self._filling[filler] = time.monotonic()
            return self._free.pop()

    def _is_turn_of(self, filler: Filler) -> bool:
        return self._queue[0] is filler and bool(self._free or self._to_make)

    def _longest_still(self, asking: Filler) -> Filler | None:
        """Only the first in the queue may ask: the others need no block yet."""
        with self._changed:
            if self._queue[0] is not asking or not self._filling:
                return None
            found = min(self._filling, key=self._filling.__getitem__)
            return found if time.monotonic() - self._filling[found] >= _STILL_S else None
