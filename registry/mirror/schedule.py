"""Mirrors that are synced again and again: which one is due, and whose turn it is to do it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, update

from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.models import Mirror as Row
from registry.mirror.sync import Means, Sync
from registry.remotes.errors import RemoteError
from storage.db import Database
from storage.errors import NameUnknown, StorageError
from storage.reference import RepositoryName

LEAST_EVERY_S: Final = 60.0
RETRY_S: Final = 900.0
_JITTER: Final = 0.1  # mirrors that were made together do not ask together
_MAX_DUE: Final = 100

_log: Final = logging.getLogger("tonnage.mirror")


@dataclass(frozen=True, slots=True)
class Turn:
    """A sync that is ours to do. next_at: when the next one is, unless this one fails."""

    mirror: Mirror
    every_s: float
    next_at: float


class Schedule:
    """When each mirror is synced, in rows: nodes that share them take turns."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def put(self, prefix: RepositoryName, every_s: float | None) -> None:
        """Sync the mirror so often, for the first time as soon as may be; None for never. Raises NameUnknown."""
        due = {"sync_every_s": every_s, "sync_at": self._clock() if every_s is not None else None}
        change = update(Row).where(Row.prefix == str(prefix)).values(due).returning(Row.id)
        with self._database.write() as session:
            if session.execute(change.execution_options(synchronize_session=False)).first() is None:
                raise NameUnknown("no such mirror; `tonnage mirror list` shows those there are", name=str(prefix))

    def claim(self) -> Turn | None:
        """A mirror that is due, for nobody else from now on; None if there is none.

        A sync that takes longer than the mirror's time may meet the next one: the two share what they fetch.
        """
        now = self._clock()
        query = select(Row.prefix, Row.sync_at, Row.sync_every_s).where(Row.sync_at <= now, Row.sync_every_s > 0)
        with self._database.connect() as connection:
            due = connection.execute(query.order_by(Row.sync_at).limit(_MAX_DUE)).all()
        for prefix, sync_at, every_s in due:
            if sync_at is None or every_s is None:
                continue
            next_at = now + every_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # not a secret
            if self._move(prefix, sync_at, next_at):
                return Turn(Mirrors(self._database).get(RepositoryName(prefix)), every_s, next_at)
        return None

    def try_again(self, turn: Turn) -> None:
        """The turn failed: the next one is sooner, unless it was set anew meanwhile."""
        self._move(str(turn.mirror.prefix), turn.next_at, self._clock() + min(turn.every_s, RETRY_S))

    def _move(self, prefix: str, seen: float, to: float) -> bool:
        change = update(Row).where(Row.prefix == prefix, Row.sync_at == seen).values(sync_at=to).returning(Row.id)
        with self._database.write() as session:
            return session.execute(change.execution_options(synchronize_session=False)).first() is not None


class Syncing:
    """Does what is due, one mirror after the other, in a thread of its own."""

    def __init__(self, make: Callable[[], Means], schedule: Schedule) -> None:
        """make: what to sync with; asked for once, when something is due."""
        self._make, self._schedule = make, schedule
        self._means: Means | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look for what is due, unless that is under way; returns at once."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self.run, name="sync", daemon=True)
            self._thread.start()

    def run(self) -> None:
        """Until nothing is due any more. A store that does not answer is asked again the next time."""
        try:
            while (turn := self._schedule.claim()) is not None:
                self._sync(turn)
        except StorageError as error:
            _log.warning("no sync: the store refuses: %s", error)

    def _sync(self, turn: Turn) -> None:
        prefix, began = turn.mirror.prefix, time.monotonic()
        _log.info("sync of %s from %s begins", prefix, turn.mirror)
        try:
            self._means = self._means or self._make()
            synced = Sync(self._means, turn.mirror, tell=lambda line: _log.info("sync of %s: %s", prefix, line)).run()
        except (StorageError, RemoteError) as error:
            _log.warning("sync of %s failed: %s", prefix, error)
            self._schedule.try_again(turn)
            return
        if synced.failures:
            self._schedule.try_again(turn)
        counts = (synced.tags, synced.blobs, synced.size, synced.failures, time.monotonic() - began)
        _log.info("sync of %s: tags=%d blobs=%d bytes=%d failures=%d seconds=%.1f", prefix, *counts)
