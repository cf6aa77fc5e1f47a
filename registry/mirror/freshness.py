"""How far what a mirror holds may be believed: when each tag was last asked for, and which upstreams do not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

from sqlalchemy import select

from registry.mirror.models import MirrorTag
from registry.remotes.errors import ConnectionCut, RemoteError, ServerBusy, Unreachable
from registry.remotes.http import Origin
from storage.db import Database, insert
from storage.digest import Digest
from storage.models import Repository
from storage.reference import RepositoryName, Tag

_DOWN_S: Final = 15.0  # that an upstream which did not answer is left alone
_MISSING_S: Final = 5.0  # ... and is not asked again for what it does not have
_MOST_KNOWN: Final = 10_000


class Freshness:
    """One for a process; what it remembers of tags is in rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._until: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def is_fresh(self, name: RepositoryName, tag: Tag, ttl_s: float) -> bool:
        """Whether the upstream was asked less than `ttl_s` ago."""
        query = (
            select(MirrorTag.checked_at)
            .join(Repository, Repository.id == MirrorTag.repository_id)
            .where(Repository.name == str(name), MirrorTag.name == str(tag))
        )
        with self._database.connect() as connection:
            checked_at = connection.execute(query).scalar_one_or_none()
        return checked_at is not None and 0 <= time.time() - checked_at < ttl_s

    def confirm(self, name: RepositoryName, tag: Tag) -> None:
        """The upstream has just said what the tag names."""
        with self._database.write() as session:
            repository_id = session.scalars(select(Repository.id).where(Repository.name == str(name))).one_or_none()
            if repository_id is None:
                return
            row = insert(session, MirrorTag).values(repository_id=repository_id, name=str(tag), checked_at=time.time())
            row = row.on_conflict_do_update(
                index_elements=["repository_id", "name"], set_={"checked_at": row.excluded.checked_at}
            )
            session.execute(row)

    def failed(self, upstream: Origin, name: RepositoryName, error: RemoteError) -> None:
        """Remember what did not answer, so that not everybody waits for it again.

        An upstream that is not there says nothing about any repository; one that is busy may be so with this one.
        """
        if isinstance(error, ServerBusy):
            self._remember((upstream, name), _DOWN_S)
        elif isinstance(error, ConnectionCut | Unreachable):
            self._remember(upstream, _DOWN_S)

    def is_slow(self, upstream: Origin, name: RepositoryName) -> None:
        """It took longer with this repository than those can wait who have something here."""
        self._remember((upstream, name), _DOWN_S)

    def answered(self, upstream: Origin, name: RepositoryName) -> None:
        """It is there again."""
        with self._lock:
            self._until.pop(upstream, None)
            self._until.pop((upstream, name), None)

    def is_down(self, upstream: Origin, name: RepositoryName) -> bool:
        return self._is_remembered(upstream) or self._is_remembered((upstream, name))

    def is_missing(self, name: RepositoryName, reference: Tag | Digest) -> bool:
        """Whether the upstream has just said that it has no such thing."""
        return self._is_remembered((name, reference))

    def missed(self, name: RepositoryName, reference: Tag | Digest) -> None:
        """It has said so."""
        self._remember((name, reference), _MISSING_S)

    def _remember(self, what: Hashable, seconds: float) -> None:
        with self._lock:
            if len(self._until) >= _MOST_KNOWN:
                self._until.clear()
            self._until[what] = time.monotonic() + seconds

    def _is_remembered(self, what: Hashable) -> bool:
        with self._lock:
            return self._until.get(what, 0.0) > time.monotonic()
