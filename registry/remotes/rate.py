"""So many bytes a second: one bucket of tokens for every body that goes out, one for every body that comes in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LEAST_RATE: Final = 16 * 1024  # bytes in a second: shared by a few streams, each still counts as alive to its peer
_BURST_NS: Final = 250_000_000  # time not used that may be made up for
_SECOND_NS: Final = 1_000_000_000
_LEAST_PIECE: Final = 4 * 1024


class RateLimit:
    """A bucket of tokens, shared by whoever is given it, from any thread; each is served in the order of asking.

    In any t seconds no more than `t + 1/4` seconds' worth of bytes may pass. Counted in whole numbers, so that a
    transfer of days keeps the rate as exactly as one of a second.
    """

    def __init__(self, bytes_a_second: int, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        if bytes_a_second < 1:
            raise ValueError("a limit is at least one byte a second")
        self._rate, self._clock_ns = bytes_a_second, clock_ns
        self._lock = threading.Lock()
        self._taken = (clock_ns() - _BURST_NS) * bytes_a_second  # a moment, in ns, times the rate: no fractions

    @property
    def piece_bytes(self) -> int:
        """What to move at once at most, so that waits are short and several streams take turns."""
        return max(_LEAST_PIECE, self._rate * _BURST_NS // _SECOND_NS)

    def take(self, size: int) -> float:
        """Take `size` bytes; how many seconds to wait until they may pass."""
        with self._lock:
            now = self._clock_ns()
            self._taken = max(self._taken, (now - _BURST_NS) * self._rate) + size * _SECOND_NS
            return max(0, self._taken - now * self._rate) / (self._rate * _SECOND_NS)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what comes (`down`) and of what goes (`up`); None lets it pass."""

    down: RateLimit | None = None
    up: RateLimit | None = None

    @classmethod
    def of(cls, down: int, up: int) -> Limits:
        """By bytes in a second; 0 is no limit."""
        return cls(RateLimit(down) if down else None, RateLimit(up) if up else None)


def paced(pieces: Iterable[bytes], limit: RateLimit, wait: Callable[[float], None]) -> Iterator[bytes]:
    """The same bytes, in pieces no larger than the limit likes, each once it may pass. Raises what `wait` raises."""
    for piece in pieces:
        for start in range(0, len(piece), limit.piece_bytes):
            part = piece[start : start + limit.piece_bytes]
            wait(limit.take(len(part)))
            yield part
