"""Finding an upload session again by what opened it, for work of the server's own that goes on in a later request."""

from __future__ import annotations

from sqlalchemy import select

from storage.db import Database
from storage.models import Repository
from storage.models import Upload as Row
from storage.reference import RepositoryName


def newest_session(database: Database, name: RepositoryName, opened_with: str) -> str | None:
    """The id of the open session of this repository that `start` was told so of, the newest; None if there is none."""
    query = (
        select(Row.id)
        .join(Repository, Repository.id == Row.repository_id)
        .where(Repository.name == str(name), Row.opened_with == opened_with, Row.finished_digest.is_(None))
        .order_by(Row.started_at.desc())
        .limit(1)
    )
    with database.connect() as connection:
        found: str | None = connection.execute(query).scalar_one_or_none()
    return found
