"""Who may append to an upload session: a claim in its row, taken by compare-and-set, never by an open transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from storage.db import Database
from storage.errors import StorageError, UploadBusy, UploadUnknown
from storage.models import Upload as Row

CLAIM_S: Final = 30.0  # a writer that died holds its session this long
RENEW_S: Final = 10.0  # far below it: a paused writer must find out before it writes, not after
WAIT_S: Final = 5.0
_POLL_S: Final = 0.1


class Claim:
    """The right to append, until it lapses. Each step that matters renews it; losing it stops the writer."""

    def __init__(self, database: Database, upload_id: str, token: str, row: Row) -> None:
        self._database = database
        self._upload_id = upload_id
        self._renewed = time.monotonic()
        self.token = token
        self.row = row
        self.is_held = True

    def save(self, **values: Any) -> None:
        """Renew, and write `values` to the session's row. Raises UploadBusy when another writer has taken over."""
        now = time.time()
        with self._database.write() as session:
            self.change(session, touched_at=now, **({"writer_until": now + CLAIM_S} | values))
        self._renewed = time.monotonic()

    def release(self, **values: Any) -> None:
        """`save`, and let the next writer in."""
        self.save(writer=None, writer_until=0.0, **values)
        self.is_held = False

    def change(self, session: Session, **values: Any) -> None:
        """Write `values` to the row within a transaction of the caller's. Raises UploadBusy, as `save`."""
        change = (
            update(Row)
            .where(Row.id == self._upload_id, Row.writer == self.token)
            .values(**values)
            .returning(Row.id)
            .execution_options(synchronize_session=False)
        )
        if session.execute(change).first() is None:
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


def _take(database: Database, upload_id: str, token: str) -> Row:
    deadline = time.monotonic() + WAIT_S
    while True:
        now = time.time()
        take = (
            update(Row)
            .where(Row.id == upload_id, Row.finished_digest.is_(None))
            .where(or_(Row.writer.is_(None), Row.writer_until < now))
            .values(writer=token, writer_until=now + CLAIM_S, touched_at=now)
            .returning(Row)
            .execution_options(synchronize_session=False)
        )
        with database.write() as session:
            if (taken := session.scalars(take).one_or_none()) is not None:
                return taken
        with database.read() as session:
            open_row = select(Row.offset).where(Row.id == upload_id, Row.finished_digest.is_(None))
            offset = session.execute(open_row).scalar_one_or_none()
        if offset is None:
            raise UploadUnknown("no such upload", upload=upload_id)
        if time.monotonic() > deadline:
            raise UploadBusy("another request is writing to the upload", upload=upload_id, offset=offset)
        time.sleep(_POLL_S)
