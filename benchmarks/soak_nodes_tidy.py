"""The janitor's work with a day that lasts a minute, and what must not be left after it: rows without bytes, bytes
without rows, anything of an upload.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from sqlalchemy import Table, func, select, update

from storage.blobs import LEASE_S, settle
from storage.db import Base
from storage.drivers.objects.names import OBJECTS, STAGED
from storage.drivers.s3 import S3Bucket
from storage.errors import StorageError
from storage.models import DELETING, LIVE, Blob, BlobLink, Object, Repository
from storage.models import Upload as UploadRow
from storage.reference import RepositoryName
from storage.store import Store

_DAY_S: Final = 75.0  # of leases, idle uploads and orphans; longer than a client's push, and than a claim
_BATCH: Final = 500
_FINISH_S: Final = 90.0  # a claim lasts 30 s
_POLL_S: Final = 0.2
_EMPTY: Final = (
    "objects",
    "blobs",
    "blob_links",
    "manifests",
    "manifest_blobs",
    "manifest_children",
    "tags",
    "uploads",
)


class Hurried:
    """A janitor in this process, beside those of the nodes. It changes rows and bytes only as the store itself does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def turn(self, *, day_s: float = _DAY_S) -> dict[str, int]:
        """Once everything that a janitor does, with all that waits a day waiting `day_s`; what it took."""
        collector = self._store.collector
        self.age(day_s)
        return {
            "uploads": self._store.uploads.expire(idle_s=day_s),
            "staged": collector.forget_staged(older_than_s=day_s),
            "orphans": collector.adopt_orphans(older_than_s=day_s),
            "objects": collector.sweep().objects,
        }

    def finish(self) -> dict[str, int]:
        """Turns with a day of no time at all, until nothing is taken any more and no killed writer's claim is left."""
        taken: dict[str, int] = {}
        deadline = time.monotonic() + _FINISH_S
        while time.monotonic() < deadline:
            self._lapse()
            self._ask_for_sessions()
            turn = self.turn(day_s=-1.0)
            for what, count in turn.items():
                taken[what] = taken.get(what, 0) + count
            if not any(turn.values()) and not dict(_counts(self._store))["uploads"]:
                break
            time.sleep(_POLL_S)
        return taken

    def _lapse(self) -> None:
        """Every lease ends; nobody pushes any more."""
        with self._store.database.begin() as connection:
            ids = list(connection.execute(select(Object.id).order_by(Object.id).with_for_update()).scalars())
            connection.execute(update(BlobLink).values(lease_until=0.0))
            settle(connection, ids)

    def _ask_for_sessions(self) -> None:
        """Where each stands: a claim whose writer is seen to be dead is over then."""
        with self._store.database.connect() as connection:
            query = select(Repository.name, UploadRow.id).join(UploadRow, UploadRow.repository_id == Repository.id)
            sessions = connection.execute(query.where(UploadRow.writer.is_not(None))).all()
        for name, upload_id in sessions:
            with suppress(StorageError):
                self._store.uploads.resume(RepositoryName(name), upload_id).recover()

    def age(self, day_s: float) -> None:
        """Let leases that were taken out for a day end `day_s` after that, those of objects in use the next time."""
        left, is_new = LEASE_S - day_s, time.time() + LEASE_S / 2
        with self._store.database.begin() as connection:
            leased = select(Object.id).where(Object.lease_until > is_new).order_by(Object.id).limit(_BATCH)
            ids = list(connection.execute(leased.with_for_update(skip_locked=True)).scalars())
            names = select(Blob.id).where(Blob.object_id.in_(ids))
            links = update(BlobLink).where(BlobLink.blob_id.in_(names), BlobLink.lease_until > is_new)
            connection.execute(links.values(lease_until=BlobLink.lease_until - left))
            settle(connection, ids)


def left_over(store: Store, bucket: S3Bucket) -> list[str]:
    """A line for each thing that is in the bucket and not in the rows, or the other way round; or of an upload."""
    with store.database.connect() as connection:
        rows = {
            row.storage_key: row for row in connection.execute(select(Object.storage_key, Object.size, Object.state))
        }
        sessions = connection.execute(select(func.count()).select_from(UploadRow)).scalar_one()
    objects = {found.name.removeprefix(OBJECTS): found.size for found in bucket.list(OBJECTS)}
    found = [f"bytes without a row: {key}, {objects[key]} bytes" for key in sorted(objects.keys() - rows.keys())]
    found += [f"a row without bytes: {key} {rows[key].state}" for key in sorted(rows.keys() - objects.keys())]
    both = rows.keys() & objects.keys()
    found += [
        f"other size: {key}: {objects[key]}, its row {rows[key].size}" for key in both if objects[key] != rows[key].size
    ]
    found += [f"marked and not removed: {key}" for key, row in rows.items() if row.state == DELETING]
    found += [f"a staged piece: {each.name}, {each.size} bytes" for each in bucket.list(STAGED)]
    found += [f"a multipart upload: {each.name}" for each in bucket.uploads(OBJECTS)]
    found += [f"{sessions} upload sessions"] if sessions else []
    return found


def rows_left(store: Store) -> list[str]:
    """Tables that are not empty and should be, once every model was deleted."""
    return [f"{count} rows in {name}" for name, count in _counts(store) if count]


def _counts(store: Store) -> Iterator[tuple[str, int]]:
    with store.database.connect() as connection:
        for name in _EMPTY:
            table: Table = Base.metadata.tables[name]
            yield name, connection.execute(select(func.count()).select_from(table)).scalar_one()


def live_bytes(store: Store) -> tuple[int, int]:
    """Objects that are live, and their bytes."""
    with store.database.connect() as connection:
        query = select(func.count(), func.coalesce(func.sum(Object.size), 0)).where(Object.state == LIVE)
        count, size = connection.execute(query).one()
        return int(count), int(size)
