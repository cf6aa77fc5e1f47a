"""Who may append to an upload session: a claim in its row, taken by compare-and-set, never by an open transaction.

A claim tells which process holds it. Where that one is seen to be dead the claim is over; else it lapses with time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from storage.db import Database
from storage.errors import StorageError, UploadBusy, UploadUnknown
from storage.models import Upload as Row
from storage.writers import is_dead, new_token

CLAIM_S: Final = 30.0  # a writer that died holds its session this long
RENEW_S: Final = 10.0  # far below it: a paused writer must find out before it writes, not after
WAIT_S: Final = 5.0
_POLL_S: Final = 0.1
_BEAT_S: Final = 1.0


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
    direct: dict[str, Any] | None


_IS_OPEN: Final = (Row.id == bindparam("upload"), Row.finished_digest.is_(None))
_WRITER: Final = select(Row.offset, Row.writer, Row.writer_until).where(*_IS_OPEN)
_COLUMNS: Final = tuple(getattr(Row, field.name) for field in fields(Held))
# These are executed with the columns to set, by their names.
_TAKE: Final = update(Row).where(*_IS_OPEN, Row.writer.is_(None)).returning(*_COLUMNS)
_TAKE_OVER: Final = (  # unless it has been renewed since we looked
    update(Row)
    .where(*_IS_OPEN, Row.writer == bindparam("left_by"), Row.writer_until == bindparam("left_until"))
    .returning(*_COLUMNS)
)
_CHANGE: Final = update(Row).where(Row.id == bindparam("upload"), Row.writer == bindparam("token")).returning(Row.id)


class Claim:
    """The right to append, until it lapses. Each step that matters renews it; losing it stops the writer.

    is_taken_over: from a writer that never let it go, and may have written more than the row tells of.
    """

    def __init__(self, database: Database, upload_id: str, token: str, row: Held, *, is_taken_over: bool) -> None:
        self._database = database
        self._upload_id = upload_id
        self._renewed = time.monotonic()
        self.token = token
        self.row = row
        self.is_taken_over = is_taken_over
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

    def keep(self, handle: str | None = None, /) -> None:
        """Renew if it is time to. Call before each write: a silent client may have let the claim lapse.

        handle: what names the staged bytes from now on; then at once, with it.
        """
        if handle is not None:
            self.save(handle=handle)
            self.row.handle = handle
        elif time.monotonic() - self._renewed > RENEW_S:
            self.save()


@contextmanager
def claimed(database: Database, upload_id: str) -> Iterator[Claim]:
    """Hold the session. Raises UploadUnknown; UploadBusy if another writer holds it for longer than we wait."""
    claim = _take(database, upload_id)
    try:
        yield claim
    finally:
        if claim.is_held:
            with suppress(StorageError):  # it lapses by itself
                claim.release()


def beside(claim: Claim, work: Callable[[], None]) -> None:
    """Do what takes a store its time, and hold the session meanwhile. Raises what `work` raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        done = pool.submit(work)
        while not done.done():
            wait([done], timeout=_BEAT_S)
            with suppress(StorageError):  # to lose it stops what comes after
                claim.keep()
        done.result()


def is_left(database: Database, upload_id: str) -> bool:
    """Whether a writer died over the session, and nobody has taken it over yet. One that only fell silent may go on."""
    with database.connect() as connection:
        row = connection.execute(_WRITER, {"upload": upload_id}).first()
    return row is not None and row.writer is not None and is_dead(row.writer)


def _take(database: Database, upload_id: str) -> Claim:
    token, deadline = new_token(), time.monotonic() + WAIT_S
    while True:
        now = time.time()
        ours = {"upload": upload_id, "writer": token, "writer_until": now + CLAIM_S, "touched_at": now}
        with database.begin() as connection:
            taken = connection.execute(_TAKE, ours).one_or_none()
        if taken is not None:
            return Claim(database, upload_id, token, Held(*taken), is_taken_over=False)
        with database.connect() as connection:
            row = connection.execute(_WRITER, {"upload": upload_id}).first()
        if row is None:
            raise UploadUnknown("no such upload", upload=upload_id)
        if _is_over(row.writer, row.writer_until):
            with database.begin() as connection:
                seen = {"left_by": row.writer, "left_until": row.writer_until}
                taken = connection.execute(_TAKE_OVER, ours | seen).one_or_none()
            if taken is not None:
                return Claim(database, upload_id, token, Held(*taken), is_taken_over=True)
        if time.monotonic() > deadline:
            raise UploadBusy("another request is writing to the upload", upload=upload_id, offset=row.offset)
        time.sleep(_POLL_S)


def _is_over(writer: str | None, until: float) -> bool:
    return writer is not None and (until < time.time() or is_dead(writer))
