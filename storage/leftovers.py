"""Bytes of sessions that ended without them: marked where the session's row ends, and dropped after that.

Whoever dies in between leaves the mark of an object that is being deleted, which the next sweep finishes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection, delete

from storage.db import Database, Upsert
from storage.drivers.protocol import Driver
from storage.errors import StorageError
from storage.models import DELETING, Object

_MARK: Final = Upsert(Object, lambda row: row.on_conflict_do_nothing(index_elements=["storage_key"]))


def mark(connection: Connection, sizes: Mapping[str, int]) -> None:
    """In the transaction that ends the sessions. sizes: how many bytes may be at each of their keys."""
    rows = [
        {"storage_key": key, "size": size, "state": DELETING, "lease_until": 0.0} for key, size in sorted(sizes.items())
    ]
    if rows:
        connection.execute(_MARK.on(connection), rows)


def drop(database: Database, driver: Driver, key: str) -> None:
    """The bytes at a marked key, and the mark. Where that fails, the next sweep does it."""
    with suppress(StorageError):
        driver.delete(key)
        unmark(database, [key])


def unmark(database: Database, keys: Collection[str]) -> None:
    """The bytes at these keys are gone. What cannot be said now is found out by the next sweep."""
    gone = delete(Object).where(Object.storage_key.in_(keys), Object.state == DELETING)
    with suppress(StorageError), database.begin() as connection:
        connection.execute(gone)
