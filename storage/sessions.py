"""Finding an upload session again by what opened it, for work of the server's own that goes on in a later request."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, select

from storage.db import Database
from storage.models import Repository
from storage.models import Upload as Row
from storage.reference import RepositoryName

_NEWEST: Final = (
    select(Row.id, Row.handle)
    .join(Repository, Repository.id == Row.repository_id)
    .where(Repository.name == bindparam("name"), Row.opened_with == bindparam("opened_with"))
    .where(Row.finished_digest.is_(None))
    .order_by(Row.started_at.desc(), Row.id)
    .limit(1)
)


def newest_session(database: Database, name: RepositoryName, opened_with: str) -> str | None:
    """The id of the open session of this repository that `start` was told so of, the newest; None if there is none."""
    with database.connect() as connection:
        return session_of(connection, name, opened_with)


def session_of(connection: Connection, name: RepositoryName, opened_with: str) -> str | None:
    """`newest_session`, within a transaction of the caller's."""
    found: str | None = connection.execute(_NEWEST, _marks(name, opened_with)).scalar()
    return found


def staged_handle(database: Database, name: RepositoryName, opened_with: str) -> str | None:
    """Where the driver keeps the bytes of that session as they arrive; None if there is none."""
    with database.connect() as connection:
        row = connection.execute(_NEWEST, _marks(name, opened_with)).first()
    return row[1] if row is not None else None


def _marks(name: RepositoryName, opened_with: str) -> dict[str, str]:
    return {"name": str(name), "opened_with": opened_with}
