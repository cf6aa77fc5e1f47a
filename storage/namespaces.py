"""Namespaces, and the repositories that come to be inside them on the first push."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Select, bindparam, delete, exists, select, update
from sqlalchemy.orm import Session

from storage.db import Database, insert
from storage.errors import NameTaken, NameUnknown, StorageUnavailable
from storage.models import BlobLink, Manifest, Repository, Upload
from storage.models import Namespace as Row
from storage.reference import HOLDING, RepositoryName, check_namespace

_MAX_LISTED: Final = 100_000
_ENSURE_TRIES: Final = 5
_REPOSITORY: Final = select(Repository.id).where(Repository.name == bindparam("name"))
_HELD: Final = _REPOSITORY.with_for_update(key_share=True, read=True)
_HELD_ALONE: Final = _REPOSITORY.with_for_update()
_IS_NAMED: Final = Row.name != HOLDING  # the holding places are nobody's to list or to share


@dataclass(frozen=True, slots=True)
class Namespace:
    """What grants attach to. In a private one, reading needs a right too."""

    name: str
    is_private: bool
    created_at: float


class Namespaces:
    """Every namespace of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, is_private: bool = True) -> Namespace:
        """Raises NameInvalid, NameTaken."""
        namespace = Namespace(check_namespace(name), is_private, time.time())
        with self._database.write() as session:
            values = {"name": name, "is_private": is_private, "created_at": namespace.created_at}
            row = insert(session, Row).values(values).on_conflict_do_nothing().returning(Row.id)
            if session.execute(row).first() is None:
                raise NameTaken("the namespace is already there", name=name)
        return namespace

    def get(self, name: str) -> Namespace:
        """Raises NameUnknown."""
        query = select(Row.name, Row.is_private, Row.created_at).where(Row.name == name, _IS_NAMED)
        with self._database.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NameUnknown("no such namespace", name=name[:255])
        return Namespace(*row)

    def list(self) -> list[Namespace]:
        """All of them, by name."""
        query = select(Row.name, Row.is_private, Row.created_at).where(_IS_NAMED)
        query = query.order_by(Row.name).limit(_MAX_LISTED)
        with self._database.connect() as connection:
            return [Namespace(*row) for row in connection.execute(query)]

    def set_private(self, name: str, is_private: bool) -> None:
        """Raises NameUnknown."""
        with self._database.write() as session:
            change = update(Row).where(Row.name == name, _IS_NAMED).values(is_private=is_private).returning(Row.id)
            if session.execute(change.execution_options(synchronize_session=False)).first() is None:
                raise NameUnknown("no such namespace", name=name[:255])


def require_repository(session: Session | Connection, name: RepositoryName) -> int:
    """The row id. Raises NameUnknown."""
    found = session.execute(_REPOSITORY, {"name": str(name)}).scalar_one_or_none()
    if found is None:
        raise NameUnknown("no such repository", name=str(name))
    return found


def drop_unused_repository(session: Session, repository_id: int) -> None:
    """Forget a repository that holds nothing, as if nobody had ever begun to push to it."""
    unused = [~exists().where(table.repository_id == repository_id) for table in (Manifest, BlobLink, Upload)]
    held = select(Repository.id).where(Repository.id == repository_id).with_for_update(skip_locked=True)
    if session.execute(held).first() is not None:
        gone = delete(Repository).where(Repository.id == repository_id, *unused)
        session.execute(gone.execution_options(synchronize_session=False))


def ensure_repository(session: Session | Connection, name: RepositoryName, *, alone: bool = False) -> int:
    """The row id; repository and namespace are made if they are missing, the namespace a private one.

    The transaction holds the row, lest it goes before something comes to be in it. alone: no other push to the
    repository gets this far until the transaction ends.
    """
    query = _HELD_ALONE if alone else _HELD
    found = session.execute(query, {"name": str(name)}).scalar_one_or_none()
    if found is not None:
        return found
    for _ in range(_ENSURE_TRIES):  # one that was just given up may go between our insert and our look
        if (made := _make_repository(session, name, query)) is not None:
            return made
    raise StorageUnavailable("the repository is made and given up again and again", name=str(name))


def _make_repository(session: Session | Connection, name: RepositoryName, query: Select[int]) -> int | None:
    now = time.time()
    namespace = insert(session, Row).values(name=name.namespace, is_private=True, created_at=now)
    session.execute(namespace.on_conflict_do_nothing())
    namespace_id = session.execute(select(Row.id).where(Row.name == name.namespace)).scalar_one()
    repository = insert(session, Repository).values(name=str(name), namespace_id=namespace_id, created_at=now)
    session.execute(repository.on_conflict_do_nothing())
    return session.execute(query, {"name": str(name)}).scalar_one_or_none()
