"""Reading every object again, at a bounded rate: what is no longer what its digests say is kept, but served no more.

A quarantined blob is unknown to readers and to pushes, so the next push of it brings good bytes, and the manifests that
list it are whole again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sqlalchemy import select, update

from storage.db import Database
from storage.digest import Digest, Hasher
from storage.drivers.protocol import Driver
from storage.errors import KeyUnknown, StorageUnavailable
from storage.models import DAMAGED, LIVE, Blob, Object

_READ_BYTES: Final = 2**20
_PAGE: Final = 500

_log: Final = logging.getLogger("tonnage.scrub")


class Problem(Enum):
    """What a scrub may find."""

    MISSING = "missing"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"  # the disk refuses, or reads differ: not proven, so nothing is done about it


@dataclass(frozen=True, slots=True)
class Checked:
    """One object that was read. `problem` is None where the bytes are what each digest says."""

    digests: tuple[Digest, ...]
    key: str
    size: int
    problem: Problem | None


class _Pace:
    """Sleeps so that no more than `rate` bytes a second are read, from the first one on."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def spend(self, size: int) -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        self._next = max(self._next, now) + size / self._rate  # time not used is not saved up
        time.sleep(max(0.0, self._next - now))


class Scrubber:
    """Any number of nodes may scrub at once; each reads everything."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver

    def run(self, *, rate: float | None = None, go_on: Callable[[], bool] = lambda: True) -> Iterator[Checked]:
        """Check every live object, oldest first, at up to `rate` bytes a second; quarantine what is proven bad."""
        pace, after = _Pace(rate), -1
        while True:
            with self._database.connect() as connection:
                query = select(Object.id, Object.storage_key, Object.size)
                query = query.where(Object.id > after, Object.state == LIVE).order_by(Object.id).limit(_PAGE)
                page = connection.execute(query).all()
            for object_id, key, size in page:
                if not go_on():
                    return
                checked = self._check(object_id, key, size, pace)
                if checked is not None:
                    yield checked
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _check(self, object_id: int, key: str, size: int, pace: _Pace) -> Checked | None:
        """None for an object that is gone by now, or has no name."""
        with self._database.connect() as connection:
            names = connection.execute(select(Blob.digest).where(Blob.object_id == object_id)).scalars().all()
        digests = tuple(Digest.parse(name) for name in names)
        if not digests:
            return None
        problem = self._judge(key, size, digests, pace)
        if problem is Problem.DAMAGED and self._judge(key, size, digests, pace) is not Problem.DAMAGED:
            problem = Problem.UNREADABLE
        if problem in (Problem.DAMAGED, Problem.MISSING) and not self._quarantine(object_id, key):
            return None
        if problem is not None:
            _log.error("%s digest=%s key=%s size=%d", problem.value, ",".join(map(str, digests)), key, size)
        return Checked(digests, key, size, problem)

    def _judge(self, key: str, size: int, digests: tuple[Digest, ...], pace: _Pace) -> Problem | None:
        hasher, read = Hasher(tuple(sorted({digest.algorithm for digest in digests}))), 0
        try:
            with self._driver.open(key) as reader:
                while data := reader.read(_READ_BYTES):
                    hasher.update(data)
                    read += len(data)
                    if read > size:
                        return Problem.DAMAGED
                    pace.spend(len(data))
        except KeyUnknown:
            return Problem.MISSING
        except (OSError, StorageUnavailable):
            return Problem.UNREADABLE
        found = hasher.digests()
        is_good = read == size and all(found[digest.algorithm] == digest for digest in digests)
        return None if is_good else Problem.DAMAGED

    def _quarantine(self, object_id: int, key: str) -> bool:
        """False if the object was swept while we read it."""
        same = (Object.id == object_id, Object.storage_key == key, Object.state == LIVE)
        change = update(Object).where(*same).values(state=DAMAGED).returning(Object.id)
        with self._database.write() as session:
            return session.execute(change.execution_options(synchronize_session=False)).first() is not None
