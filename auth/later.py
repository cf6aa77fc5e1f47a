"""Rows that nobody waits for: gathered for a moment, then written in one short transaction by a thread of its own.

However many requests are refused in a second, the database sees one transaction of a bounded size.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, Final, Protocol

from sqlalchemy.orm import Session

from storage.db import Database
from storage.errors import StorageError

GATHER_S: Final = 1.0
_IDLE_S: Final = 5.0  # between looks at what has to wait for its minute
BATCH: Final = 500  # rows of one source in one transaction

_log: Final = logging.getLogger("tonnage.auth")


class Source(Protocol):
    """Whatever gathers rows. What `take` gave is either written, given back, or lost to an error of ours."""

    def take(self, limit: int, *, everything: bool = False) -> Sequence[Any]:
        """What is to be written now, at most `limit`."""

    def put(self, session: Session, taken: Sequence[Any]) -> None:
        """Write it; raising rolls everything back."""

    def give_back(self, taken: Sequence[Any]) -> None:
        """The database did not answer."""

    def __len__(self) -> int: ...


class Later:
    """Writes what its sources gather. The thread begins with the first `wake` in a process, so a fork is no harm.

    A process that is killed loses what it gathered in the last second, and counts of the last minute.
    """

    def __init__(self, database: Database, sources: Sequence[Source], *, gather_s: float = GATHER_S) -> None:
        self._database, self._sources, self._gather_s = database, tuple(sources), gather_s
        self._pid: int | None = None
        self._starting, self._writing = threading.Lock(), threading.Lock()
        self._woken, self._stopped = threading.Event(), threading.Event()

    def wake(self) -> None:
        """There is something to write."""
        if self._pid != os.getpid():
            self._start()
        if not self._woken.is_set():
            self._woken.set()

    def flush(self, *, everything: bool = False) -> None:
        """Write what is due now; all there is with `everything`. What the database refuses waits for the next time."""
        with self._writing:
            taken = [
                (source, items) for source in self._sources if (items := source.take(BATCH, everything=everything))
            ]
            if not taken:
                return
            try:
                with self._database.write() as session:
                    for source, items in taken:
                        source.put(session, items)
            except StorageError as error:
                _log.warning("rows have to wait: %s", error)
                for source, items in taken:
                    source.give_back(items)
            except Exception:  # a bug of ours must not stop what comes after it
                _log.exception("rows were lost: %d", sum(len(items) for _, items in taken))

    def close(self) -> None:
        """Write all there is and end the thread; what the database refuses now is lost."""
        self._stopped.set()
        self._woken.set()
        left = sum(map(len, self._sources))
        while left:
            self.flush(everything=True)
            before, left = left, sum(map(len, self._sources))
            if left >= before:
                return

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            self._writing, self._woken, self._stopped = threading.Lock(), threading.Event(), threading.Event()
            threading.Thread(target=self._run, name="later", daemon=True).start()
            atexit.register(self.close)
            self._pid = os.getpid()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(_IDLE_S if any(map(len, self._sources)) else None)
            self._stopped.wait(self._gather_s)
            self._woken.clear()
            self.flush()
