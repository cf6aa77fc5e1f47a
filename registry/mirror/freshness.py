"""How far what a mirror holds may be believed: when each tag was last asked for, and which upstreams do not answer."""

from __future__ import annotations

import threading
import time
from typing import Final

from sqlalchemy import select

from registry.mirror.models import MirrorTag
from registry.remotes.errors import ConnectionCut, RemoteError, ServerBusy, Unreachable
from registry.remotes.http import Origin
from storage.db import Database, insert
from storage.models import Repository
from storage.reference import RepositoryName, Tag

_DOWN_S: Final = 15.0  # that an upstream which did not answer is left alone, where something can be given without it
_MOST_DOWN: Final = 1000


class Freshness:
    """One for a process; what it remembers of tags is in rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._down: dict[Origin, float] = {}
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

    def failed(self, upstream: Origin, error: RemoteError) -> None:
        """Remember an upstream that did not answer, so that not everybody waits for it again."""
        if isinstance(error, ConnectionCut | ServerBusy | Unreachable):
            with self._lock:
                if len(self._down) >= _MOST_DOWN:
                    self._down.clear()
                self._down[upstream] = time.monotonic() + _DOWN_S

    def answered(self, upstream: Origin) -> None:
        """It is there again."""
        with self._lock:
            self._down.pop(upstream, None)

    def is_down(self, upstream: Origin) -> bool:
        with self._lock:
            return self._down.get(upstream, 0.0) > time.monotonic()
