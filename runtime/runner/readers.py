"""Threads that read requests beside the loop: what takes long must not keep the answers of others waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from runtime.runner.turns import Turns

Work = Callable[[], None]


class Readers:
    """One thread and what it has still to do, each caller's in turn."""

    def __init__(self, name: str) -> None:
        self._turns: Turns[tuple[Hashable, Work]] = Turns()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def add(self, caller: str, owner: Hashable, work: Work) -> None:
        """Have `work` done. It raises nothing."""
        with self._changed:
            self._turns.add(caller, (owner, work))
            self._changed.notify()

    def drop(self, owner: Hashable) -> None:
        """Forget what `owner` wanted, where it has not begun."""
        with self._changed:
            for item in [item for item in self._turns if item[0] is owner]:
                self._turns.remove(item)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not len(self._turns):
                    self._changed.wait()
                _, work = self._turns.pop()
            work()
