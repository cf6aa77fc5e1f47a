"""Upload sessions: append, commit, cancel, expire. Any process may serve any request of a session.

The row says how much is durable and carries the hash states after it; the bytes are staged with the driver.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, delete, insert, null, or_, select, true

from storage import layout
from storage.db import Database, HotQuery
from storage.digest import ALGORITHMS, Digest, Hasher, check_algorithm
from storage.direct import sent_size
from storage.drivers.protocol import Driver
from storage.errors import (
    UploadUnknown,
)
from storage.leftovers import mark, unmark
from storage.models import Repository
from storage.models import Upload as Row
from storage.namespaces import ensure_repository
from storage.reference import RepositoryName
from storage.retry import retried
from storage.sessions import session_of
from storage.upload import Upload

IDLE_S: Final = 24 * 3600.0
_EXPIRE_BATCH: Final = 100


def _of_repository(query: Select[*tuple[Any, ...]]) -> HotQuery:
    query = query.join(Repository, Repository.id == Row.repository_id)
    return HotQuery(query.where(Row.id == bindparam("upload"), Repository.name == bindparam("name")))


_START: Final = insert(Row)
_IS_DIRECT: Final = Row.direct.is_not(null())
_OPEN: Final = _of_repository(select(Row.offset, Row.principal, _IS_DIRECT).where(Row.finished_digest.is_(None)))
_OPENED_WITH: Final = _of_repository(select(Row.opened_with))
_FINISHED: Final = _of_repository(select(Row.finished_digest))


class Uploads:
    """Every open upload session, and for a day the finished ones."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver

    def start(
        self,
        name: RepositoryName,
        *,
        principal: str | None = None,
        algorithm: str | None = None,
        opened_with: str | None = None,
        is_only: bool = False,
    ) -> Upload:
        """Open a session. `algorithm`: the only one the closing digest will use. Raises DigestInvalid.

        opened_with: up to 64 characters that `opened_with` tells later. is_only: unless the repository has an open
        session with the same, which is then the one; of any number who ask at once, one opens it.
        """
        states = Hasher(ALGORITHMS if algorithm is None else (check_algorithm(algorithm),)).states()
        key, now = layout.new_blob_key(), time.time()
        upload_id, handle = secrets.token_urlsafe(24), self._driver.stage(key)
        row = {
            "id": upload_id,
            "principal": principal,
            "handle": handle,
            "storage_key": key,
            "offset": 0,
            "states": states,
            "writer_until": 0.0,
            "started_at": now,
            "touched_at": now,
            "opened_with": opened_with,
        }
        try:
            found = self._insert(name, row, opened_with if is_only else None)
        except BaseException:
            self._driver.discard(handle)
            raise
        if found is not None:
            self._driver.discard(handle)
            return self.resume(name, found)
        return Upload(self._database, self._driver, name, upload_id, 0, states=states)

    @retried
    def _insert(self, name: RepositoryName, row: Mapping[str, object], only_with: str | None) -> str | None:
        """Make the session; or, where one opened with the same is to be the only one and there is one, its id."""
        with self._database.begin() as connection:
            repository_id = ensure_repository(connection, name, alone=bool(only_with))
            found = session_of(connection, name, only_with) if only_with else None
            if found is None:
                connection.execute(_START, {**row, "repository_id": repository_id})
            return found

    def resume(self, name: RepositoryName, upload_id: str, *, principal: str | None = None) -> Upload:
        """An open session of this repository; where both are known, of this principal. Raises UploadUnknown."""
        offset, owner, is_direct = self._look(_OPEN, name, upload_id) or (None, None, False)
        if offset is None or (principal is not None and owner not in (None, principal)):
            raise UploadUnknown("no such upload", upload=upload_id[:64])
        return Upload(self._database, self._driver, name, upload_id, offset, is_direct=bool(is_direct))

    def opened_with(self, name: RepositoryName, upload_id: str) -> str | None:
        """What `start` was told; None if there is no such session."""
        row = self._look(_OPENED_WITH, name, upload_id)
        opened_with: str | None = row[0] if row is not None else None
        return opened_with

    def finished(self, name: RepositoryName, upload_id: str) -> Digest | None:
        """What the session was committed as, for a day: the answer to a repeated PUT whose first answer got lost."""
        (digest,) = self._look(_FINISHED, name, upload_id) or (None,)
        return Digest.parse(digest) if digest else None

    def _look(self, query: HotQuery, name: RepositoryName, upload_id: str) -> tuple[Any, ...] | None:
        return self._database.first(query, name=str(name), upload=upload_id) if _is_id(upload_id) else None

    def expire(self, *, idle_s: float = IDLE_S, only: ColumnElement[bool] | None = None) -> int:
        """Drop sessions that nobody touched for `idle_s`, in one bounded batch; how many. only: some, by their rows."""
        now = time.time()
        chosen = only if only is not None else true()
        idle = select(Row.id).where(Row.touched_at < now - idle_s, chosen).order_by(Row.touched_at).limit(_EXPIRE_BATCH)
        gone = (
            delete(Row)
            .where(Row.id.in_(idle), Row.touched_at < now - idle_s)
            .where(or_(Row.writer.is_(None), Row.writer_until < now))
            .returning(Row.handle, Row.storage_key, Row.offset, Row.direct, Row.finished_digest)
            .execution_options(synchronize_session=False)
        )
        with self._database.write() as session:
            rows = session.execute(gone).all()
            unfinished = [row for row in rows if row.finished_digest is None]
            mark(session.connection(), {row.storage_key: sent_size(row.offset, row.direct) for row in unfinished})
        for row in unfinished:  # row first, then bytes: nothing ever points to missing ones
            self._driver.discard(row.handle)
        if unfinished:
            unmark(self._database, [row.storage_key for row in unfinished])
        return len(rows)


def _is_id(text: str) -> bool:
    """Could `start` have made it? Keeps hostile text away from the database driver."""
    return len(text) <= 64 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()
