"""The memory that all writers of a process share: so many blocks, whoever has them."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from storage.errors import StorageUnavailable

_WAIT_S: Final = 60.0  # without any block coming free
_STILL_S: Final = 1.0
_HELD_S: Final = 2.0  # with four blocks, sixty who wait for slow ones have their turn within half a minute


class Filler(Protocol):
    """Whoever is filling a block."""

    def give_way(self) -> bool:
        """Save what the block holds and give it back, unless somebody is at work on it right now; whether it did."""


@dataclass(slots=True)
class _Filling:
    """since: when the block was taken. touched_at: when it was added to last."""

    since: float
    touched_at: float


class Blocks:
    """At most `count` blocks of `size` bytes, made when they are first needed and then used again.

    Who finds none waits in turn: for those that are on their way to the store, and for those whose filler stands still
    or takes long, because its client does. The latter have to give way to the first who waits, so slow clients keep
    nobody waiting.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._to_make = count
        self._free: list[bytearray] = []
        self._filling: dict[Filler, _Filling] = {}
        self._given_at = 0.0
        self._queue: deque[Filler] = deque()
        self._changed = threading.Condition()

    def take(self, filler: Filler) -> bytearray:
        """A block to fill, of any content. Raises StorageUnavailable where none comes free for a minute."""
        asked_at = time.monotonic()
        with self._changed:
            self._queue.append(filler)
        try:
            while (block := self._next(filler)) is None:
                if time.monotonic() > max(asked_at, self._given_at) + _WAIT_S:
                    raise StorageUnavailable("as many bytes as the node may hold are on their way to the object store")
                for slow in self._slow(filler):
                    if slow.give_way():
                        break
            return block
        finally:
            with self._changed:
                self._queue.remove(filler)
                self._changed.notify_all()

    def touch(self, filler: Filler) -> None:
        """It does not stand still."""
        with self._changed:
            if filler in self._filling:
                self._filling[filler].touched_at = time.monotonic()

    def fill_no_more(self, filler: Filler) -> None:
        """Its block is full; it has it still."""
        with self._changed:
            self._filling.pop(filler, None)

    def give(self, block: bytearray) -> None:
        with self._changed:
            self._free.append(block)
            self._given_at = time.monotonic()
            self._changed.notify_all()

    def _next(self, filler: Filler) -> bytearray | None:
        """Wait a moment for our turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_turn_of(filler), _STILL_S)
            if not self._is_turn_of(filler):
                return None
            if not self._free:
                self._free.append(bytearray(self.size))
                self._to_make -= 1
            now = time.monotonic()
            self._filling[filler] = _Filling(now, now)
            return self._free.pop()

    def _is_turn_of(self, filler: Filler) -> bool:
        return self._queue[0] is filler and bool(self._free or self._to_make)

    def _slow(self, asking: Filler) -> list[Filler]:
        """Those that have to give way, the slowest first. Only for the first in the queue: others need no block yet."""
        with self._changed:
            if self._queue[0] is not asking:
                return []
            now = time.monotonic()
            slow = [
                (held.since, filler)
                for filler, held in self._filling.items()
                if now - held.touched_at >= _STILL_S or now - held.since >= _HELD_S
            ]
        return [filler for _, filler in sorted(slow, key=lambda each: each[0])]
