"""How many transfers a process has under way, and for whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from registry.remotes.jobs import Job
from runtime.errors import QueueFull

_BUSY_S: Final = 5


class Slot:
    """The place of one transfer. It is taken until the transfer is left, and its last thread has ended."""

    def __init__(self, principal: str | None) -> None:
        self.principal = principal
        self._jobs: list[Job[Any]] = []
        self._is_left = False

    def add(self, job: Job[Any]) -> None:
        """The transfer works by this job too."""
        self._jobs = [each for each in self._jobs if not each.has_ended]
        self._jobs.append(job)

    def leave(self) -> None:
        """Nobody waits any more. A job that others still watch is theirs now."""
        self._jobs = [each for each in self._jobs if each.is_ending]
        self._is_left = True

    @property
    def is_free(self) -> bool:
        return self._is_left and all(each.has_ended for each in self._jobs)


class Slots:
    """At most `total` transfers at once, and half of that, one at least, for one principal.

    A job that was given up may sit in a resolver or a connection attempt for a while: its slot is taken meanwhile, or
    threads would pile up.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._share = max(1, total // 2)
        self._taken: list[Slot] = []
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, principal: str | None = None) -> Iterator[Slot]:
        """A slot, at once. principal: None for the server's own work, which has no share. Raises QueueFull."""
        slot = self._take(principal)
        try:
            yield slot
        finally:
            slot.leave()

    def _take(self, principal: str | None) -> Slot:
        with self._lock:
            self._taken = [each for each in self._taken if not each.is_free]
            own = sum(each.principal == principal for each in self._taken)
            if len(self._taken) >= self._total or (principal is not None and own >= self._share):
                raise QueueFull(
                    "server busy, please try again.  too many pulls and pushes are under way", retry_after_s=_BUSY_S
                )
            slot = Slot(principal)
            self._taken.append(slot)
            return slot
