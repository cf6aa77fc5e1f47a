"""Equal events counted together: the first of a kind at once, those that follow within a minute as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WINDOW_S: Final = 60.0


@dataclass(slots=True)
class _Tally(Generic[V]):
    latest: V
    count: int
    due_at: float  # not handed out before


class Tallies(Generic[K, V]):
    """Counts by key, of a bounded number of keys. Safe for threads; each process has its own."""

    def __init__(self, max_keys: int, *, window_s: float = WINDOW_S, now: Callable[[], float] = time.monotonic) -> None:
        self._max_keys, self._window_s, self._now = max_keys, window_s, now
        self._tallies: dict[K, _Tally[V]] = {}
        self._lock = threading.Lock()

    def add(self, key: K, value: V, count: int = 1) -> bool:
        """Count one more; `value` stands for all of them. False if there are too many keys already."""
        with self._lock:
            tally = self._tallies.get(key)
            if tally is not None:
                tally.latest, tally.count = value, tally.count + count
                return True
            if len(self._tallies) >= self._max_keys:
                return False
            self._tallies[key] = _Tally(value, count, self._now())
            return True

    def take(self, limit: int, *, everything: bool = False) -> list[tuple[K, V, int]]:
        """Up to `limit` keys whose time has come, with their latest value and count; they wait a window from here.

        everything: also those whose time has not come, before the process ends.
        """
        taken: list[tuple[K, V, int]] = []
        with self._lock:
            now = self._now()
            for key, tally in list(self._tallies.items()):
                if len(taken) >= limit:
                    break
                if tally.due_at > now and not everything:
                    continue
                if tally.count:
                    taken.append((key, tally.latest, tally.count))
                    tally.count, tally.due_at = 0, now + self._window_s
                elif tally.due_at <= now:
                    del self._tallies[key]
        return taken

    def give_back(self, taken: Iterable[tuple[K, V, int]]) -> None:
        """What was taken could not be used; it is due again at once."""
        with self._lock:
            now = self._now()
            for key, value, count in taken:
                tally = self._tallies.setdefault(key, _Tally(value, 0, now))
                tally.count, tally.due_at = tally.count + count, now

    def __len__(self) -> int:
        return len(self._tallies)
