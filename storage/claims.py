"""Who may append to an upload session: a claim in its row, taken by compare-and-set, never by an open transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, or_, select, update

from storage.db import Database
from storage.errors import StorageError, UploadBusy, UploadUnknown
from storage.models import Upload as Row

CLAIM_S: Final = 30.0  # a writer that died holds its session this long
RENEW_S: Final = 10.0  # far below it: a paused writer must find out before it writes, not after
WAIT_S: Final = 5.0
_POLL_S: Final = 0.1


@dataclass(slots=True)
class Held:
    """The session's row in memory, as it was when the claim was taken."""

    repository_id: int
    principal: str | None
    handle: str
    storage_key: str
    offset: int
    states: dict[str, str]
    chunk_start: int | None
    chunk_states: dict[str, str] | None
    chunk_end: int | None


_IS_OPEN: Final = (Row.id == bindparam("upload"), Row.finished_digest.is_(None))
_OFFSET: Final = select(Row.offset).where(*_IS_OPEN)
# These two are executed with the columns to set, by their names.
_TAKE: Final = (
    update(Row)
    .where(*_IS_OPEN, or_(Row.writer.is_(None), Row.writer_until < bindparam("now")))
    .returning(*(getattr(Row, field.name) for field in fields(Held)))
)
_CHANGE: Final = update(Row).where(Row.id == bindparam("upload"), Row.writer == bindparam("token")).returning(Row.id)


class Claim:
    """The right to append, until it lapses. Each step that matters renews it; losing it stops the writer."""

    def __init__(self, database: Database, upload_id: str, token: str, row: Held) -> None:
        self._database = database
        self._upload_id = upload_id
        self._renewed = time.monotonic()
        self.token = token
        self.row = row
        self.is_held = True

    def save(self, **values: Any) -> None:
        """Renew, and write `values` to the session's row. Raises UploadBusy when another writer has taken over."""
        now = time.time()
        with self._database.begin() as connection:
            self.change(connection, touched_at=now, **({"writer_until": now + CLAIM_S} | values))
        self._renewed = time.monotonic()

    def release(self, **values: Any) -> None:
        """`save`, and let the next writer in."""
        self.save(writer=None, writer_until=0.0, **values)
        self.is_held = False

    def change(self, connection: Connection, **values: Any) -> None:
        """Write `values` to the row within a transaction of the caller's. Raises UploadBusy, as `save`."""
        key = {"upload": self._upload_id, "token": self.token}
        if connection.execute(_CHANGE, key | values).first() is None:
            self.is_held = False
            raise UploadBusy("another request took over the upload", upload=self._upload_id, offset=self.row.offset)

    def keep(self) -> None:
        """Renew if it is time to. Call before each write: a silent client may have let the claim lapse."""
        if time.monotonic() - self._renewed > RENEW_S:
            self.save()


@contextmanager
def claimed(database: Database, upload_id: str) -> Iterator[Claim]:
    """Hold the session. Raises UploadUnknown; UploadBusy if another writer holds it for longer than we wait."""
    token = secrets.token_hex(16)
    claim = Claim(database, upload_id, token, _take(database, upload_id, token))
    try:
        yield claim
    finally:
        if claim.is_held:
            with suppress(StorageError):  # it lapses by itself
                claim.release()


def _take(database: Database, upload_id: str, token: str) -> Held:
    deadline = time.monotonic() + WAIT_S
    while True:
        now = time.time()
        ours = {"writer": token, "writer_until": now + CLAIM_S, "touched_at": now}
        with database.begin() as connection:
            taken = connection.execute(_TAKE, {"upload": upload_id, "now": now} | ours).one_or_none()
        if taken is not None:
            return Held(*taken)
        with database.connect() as connection:
            offset = connection.execute(_OFFSET, {"upload": upload_id}).scalar_one_or_none()
        if offset is None:
            raise UploadUnknown("no such upload", upload=upload_id)
        if time.monotonic() > deadline:
            raise UploadBusy("another request is writing to the upload", upload=upload_id, offset=offset)
        time.sleep(_POLL_S)
