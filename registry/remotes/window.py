"""What of a blob is asked for, what has come of it, and in which order it is handed out: shared by many threads.

Parts are fetched side by side and kept until their turn. The first one is handed out as it arrives.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

MOST_CONNECTIONS: Final = 4
_MOST_PARTS: Final = 6  # begun and not yet handed out: two more than connections, which are not all of one speed
_STREAM_BYTES: Final = 2 * 1024 * 1024  # that may come before it is taken, of a part without room of its own
_CALM_PARTS: Final = 16  # that come well before one more connection is tried, after the server refused one
_LOOK_S: Final = 0.25  # the budget tells nobody that there is room again


class Budget:
    """Bytes that all transfers of a process together may hold before their turn."""

    def __init__(self, size: int) -> None:
        self._left, self._lock = size, threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there was room; then it is taken."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


@dataclass(slots=True, eq=False)
class Part:
    """Bytes of the blob, up to before `end`. position: how far they have come.

    reserved: bytes of the budget, which it may hold; without any, it waits for who takes what has come.
    """

    position: int
    end: int
    reserved: int
    is_taken: bool = False  # a connection is at work at it
    held: bytearray = field(default_factory=bytearray)  # one piece, however small those are that come

    @property
    def is_full(self) -> bool:
        return len(self.held) >= (self.reserved or _STREAM_BYTES)

    @property
    def is_left(self) -> bool:
        return not self.is_taken and self.position < self.end


class Window:
    """The parts of the bytes from `start` to before `end` that are in memory or on their way."""

    def __init__(self, start: int, end: int, part_bytes: int, budget: Budget) -> None:
        self._next, self._end, self._part_bytes, self._budget = start, end, part_bytes, budget
        self._parts: deque[Part] = deque()
        self._connections, self._allowed, self._calm = 0, 1, 0
        self._has_answered = False
        self._error: BaseException | None = None
        self._is_over = False
        lock = threading.Lock()
        self._came, self._went = threading.Condition(lock), threading.Condition(lock)

    @property
    def is_over(self) -> bool:
        return self._is_over

    def join(self, *, is_answered: bool = False) -> bool:
        """Whether one more connection is of use; it counts from then on. is_answered: the server does send parts.

        Before it has, there is one: a server that knows no ranges would send everything to each.
        """
        with self._went:
            if is_answered and not self._has_answered:
                self._has_answered, self._allowed = True, MOST_CONNECTIONS
            if self._is_over or self._connections >= self._allowed or not self._has_more():
                return False
            self._connections += 1
            return True

    def claim(self) -> Part | None:
        """The first part that no connection is at work at, as soon as there is one; None when there will be none."""
        with self._went:
            while not self._is_over and self._has_more():
                part = next((each for each in self._parts if each.is_left), None) or self._begun()
                if part is not None:
                    part.is_taken = True
                    return part
                self._went.wait(_LOOK_S)
            self._connections -= 1
            return None

    def put(self, part: Part, piece: bytes) -> bool:
        """The next piece of the part, when there is room for it; False if nobody wants it any more."""
        with self._went:
            while part.is_full and not self._is_over:
                self._went.wait()
            if self._is_over:
                return False
            part.held += piece
            part.position += len(piece)
            if part is self._parts[0]:
                self._came.notify()
            return True

    def done(self) -> None:
        """A part is complete. Where connections were refused, one more may be tried after many such."""
        with self._went:
            self._calm += 1
            if self._has_answered and self._calm >= _CALM_PARTS and self._allowed < MOST_CONNECTIONS:
                self._allowed, self._calm = self._allowed + 1, 0

    def give_up(self, part: Part) -> bool:
        """Leave the rest of the part to other connections, and end; False if this is the last one."""
        with self._went:
            return self._connections > 1 and self._gave_up(part)

    def put_back(self, part: Part) -> bool:
        """Leave the rest of the part to whoever claims it; False if that will be others, and this one ends."""
        with self._went:
            if self._connections > 1:
                return not self._gave_up(part)
            part.is_taken = False
            return True

    def run_on(self, part: Part) -> bool:
        """Let the part be all that is left, of a server that sends it anyway; False if others have their turn first."""
        with self._went:
            if self._is_over or self._connections > 1:
                return False
            if next(each for each in self._parts if each.position < each.end) is not part:
                return False
            while self._parts[-1] is not part:
                self._budget.give_back(self._parts.pop().reserved)
            self._next = part.end = self._end
            return True

    def fail(self, error: BaseException) -> None:
        """It ends with this, once all that came in order before it has been taken."""
        with self._went:
            self._error = self._error or error
            self._end_all()

    def take(self, limit: int, wait_s: float) -> bytes:
        """Some of the next `limit` bytes, as they are here; b"" if none come in time. Raises what `fail` was told."""
        with self._came:
            if not (self._error or (self._parts and self._parts[0].held)):
                self._came.wait(wait_s)
            taken = self._taken(limit)
            if not taken and self._error is not None:
                raise self._error
            return taken

    def close(self) -> None:
        """Nobody takes any more."""
        with self._went:
            while self._parts:
                self._budget.give_back(self._parts.pop().reserved)
            self._end_all()

    def _gave_up(self, part: Part) -> bool:
        part.is_taken = False
        self._connections -= 1
        self._allowed, self._calm = self._connections, 0
        self._went.notify_all()
        return True

    def _end_all(self) -> None:
        self._is_over = True
        self._came.notify_all()
        self._went.notify_all()

    def _has_more(self) -> bool:
        return self._next < self._end or any(each.is_left for each in self._parts)

    def _begun(self) -> Part | None:
        """A new part; None where there is no room. The first of all needs none."""
        size = min(self._part_bytes, self._end - self._next)
        if size <= 0 or len(self._parts) >= _MOST_PARTS:
            return None
        reserved = size if self._allowed > 1 and self._budget.take(size) else 0
        if not reserved and self._parts:
            return None
        part = Part(self._next, self._next + size, reserved)
        self._parts.append(part)
        self._next = part.end
        return part

    def _taken(self, limit: int) -> bytes:
        if not self._parts:
            return b""
        first = self._parts[0]
        with memoryview(first.held) as held:
            taken = bytes(held[:limit])
        del first.held[:limit]
        if not first.held and first.position == first.end:
            self._budget.give_back(self._parts.popleft().reserved)
        if taken:
            self._went.notify_all()
        return taken
