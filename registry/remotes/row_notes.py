"""Notes of upload sessions in rows: whichever process pushes next goes on where a killed one stood."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, select

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.models import RemoteUpload as Row
from storage.db import Database, Upsert
from storage.digest import Digest
from storage.errors import StorageFull, StorageUnavailable

_LIFE_S: Final = 7 * 86400.0  # registries forget idle sessions sooner
_PRUNED: Final = 100
_KEY: Final = ("server", "repository", "digest")
_SAVE: Final = Upsert(
    Row,
    lambda insert: insert.on_conflict_do_update(
        index_elements=_KEY, set_={"url": insert.excluded.url, "saved_at": insert.excluded.saved_at}
    ),
)

log: Final = logging.getLogger("tonnage.remotes")


class RowNotes:
    """`Notes` that outlive this process. Session URLs may carry rights: they are in no log and no answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, remote: RemoteRepository, digest: Digest) -> str | None:
        """The noted session URL, None when there is no fresh one."""
        query = select(Row.url).where(Row.saved_at > time.time() - _LIFE_S, *_is(remote, digest))
        with _OnlyAHint(), self._database.connect() as connection:
            return connection.execute(query).scalar_one_or_none()
        return None

    def save(self, remote: RemoteRepository, digest: Digest, url: str) -> None:
        """Replaces the note; a few that are out of date go with it."""
        now = time.time()
        old = select(Row.saved_at).where(Row.saved_at <= now - _LIFE_S).order_by(Row.saved_at).limit(_PRUNED)
        with _OnlyAHint(), self._database.begin() as connection:
            connection.execute(_SAVE.on(connection), _key(remote, digest) | {"url": url, "saved_at": now})
            connection.execute(delete(Row).where(Row.saved_at.in_(old)))

    def forget(self, remote: RemoteRepository, digest: Digest) -> None:
        if self.load(remote, digest) is None:  # most blobs are there already, and a read costs no turn at the database
            return
        with _OnlyAHint(), self._database.begin() as connection:
            connection.execute(delete(Row).where(*_is(remote, digest)))


def _key(remote: RemoteRepository, digest: Digest) -> dict[str, Any]:
    return {"server": str(remote.home), "repository": str(remote.repository), "digest": str(digest)}


def _is(remote: RemoteRepository, digest: Digest) -> list[ColumnElement[bool]]:
    return [getattr(Row, name) == value for name, value in _key(remote, digest).items()]


class _OnlyAHint:
    """A database that cannot take a note must not end the transfer of which it tells."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        is_out_of_order = isinstance(error, StorageFull | StorageUnavailable)
        if is_out_of_order:
            log.warning("no note of an upload: %s", error)
        return is_out_of_order
