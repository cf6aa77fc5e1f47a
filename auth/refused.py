"""Keys that signed as they should and that nobody had let in: an administrator sees them, and lets them in by name."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth.errors import GrantUnknown
from auth.identity import Role
from auth.keys import PublicKey
from auth.models import KeyGrant, RefusedKey
from auth.scopes import Scope
from auth.tallies import Tallies
from storage.db import Database, insert
from storage.errors import NameInvalid
from storage.reference import RepositoryName

MAX_KEPT: Final = 1000
_MAX_NEW: Final = 100  # in one transaction: a stranger makes keys for free
_MAX_WANTED: Final = 300  # characters, as the column has them
_MAX_ADDRESS: Final = 64

_log: Final = logging.getLogger("tonnage.auth")


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused key. wanted: `<repository>:<actions>`, or empty. Times in Unix seconds."""

    key: PublicKey
    address: str
    wanted: str
    first_seen_at: float
    last_seen_at: float
    count: int

    @property
    def command(self) -> str:
        """What lets the key in, as an administrator may type it."""
        scope = Scope.parse(f"repository:{self.wanted}")
        namespace, role = "NAMESPACE", Role.PUSH
        if scope is not None:
            role = _role_for(scope)
            with suppress(NameInvalid):  # a stranger's words have no place in a command
                namespace = RepositoryName.parse(scope.name).namespace
        return f"tonnage key add {namespace} {self.key.fingerprint} --role {role}"


@dataclass(frozen=True, slots=True)
class _Sight:
    key: PublicKey
    address: str
    wanted: str
    first_at: float
    last_at: float


class RefusedKeys:
    """The last thousand of them. Seen by requests, written through `auth.later`, once a minute each at most."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time, max_kept: int = MAX_KEPT) -> None:
        self._database, self._now, self._max_kept = database, now, max_kept
        self._seen: Tallies[str, _Sight] = Tallies(MAX_KEPT)

    def saw(self, key: PublicKey, *, address: str, wanted: str = "") -> None:
        """A request that `key` signed was refused; row and log line come in a moment."""
        now = self._now()
        sight = _Sight(key, address[:_MAX_ADDRESS], _printable(wanted), now, now)
        self._seen.add(key.fingerprint, sight)

    def list(self) -> tuple[Refused, ...]:
        """All of them, those seen last at the end."""
        with self._database.read() as session:
            rows = session.execute(select(*_COLUMNS).order_by(RefusedKey.last_seen_at, RefusedKey.fingerprint)).all()
        return tuple(_refused(row) for row in rows)

    def get(self, fingerprint: str) -> Refused:
        """Raises GrantUnknown."""
        with self._database.read() as session:
            row = session.execute(select(*_COLUMNS).where(RefusedKey.fingerprint == fingerprint)).one_or_none()
        if row is None:
            raise GrantUnknown(f"no key {fingerprint} was refused; `tonnage key refused` shows those that were")
        return _refused(row)

    def forget(self, fingerprint: str | None = None) -> int:
        """Remove one, or all; how many there were."""
        gone = delete(RefusedKey)
        if fingerprint is not None:
            gone = gone.where(RefusedKey.fingerprint == fingerprint)
        with self._database.write() as session:
            return len(session.execute(gone.returning(RefusedKey.fingerprint)).all())

    def take(self, limit: int, *, everything: bool = False) -> Sequence[Any]:
        return self._seen.take(min(limit, _MAX_NEW), everything=everything)

    def put(self, session: Session, taken: Sequence[Any]) -> None:
        """Those that were let in meanwhile are left out."""
        prints = [fingerprint for fingerprint, _, _ in taken]
        admitted = set(session.scalars(select(KeyGrant.fingerprint).where(KeyGrant.fingerprint.in_(prints))))
        known = set(session.scalars(select(RefusedKey.fingerprint).where(RefusedKey.fingerprint.in_(prints))))
        by_fingerprint = sorted(taken, key=lambda each: str(each[0]))  # no two processes wait for each other then
        for fingerprint, sight, count in by_fingerprint:
            if fingerprint in admitted:
                continue
            self._upsert(session, sight, count)
            if fingerprint not in known:
                _log.info("refused a key that nobody let in: %s; see `tonnage key refused`", fingerprint)
        kept = select(RefusedKey.fingerprint).order_by(RefusedKey.last_seen_at.desc()).limit(self._max_kept)
        gone = delete(RefusedKey).where(RefusedKey.fingerprint.not_in(kept))
        session.execute(gone.execution_options(synchronize_session=False))

    def give_back(self, taken: Sequence[Any]) -> None:
        self._seen.give_back(taken)

    def __len__(self) -> int:
        return len(self._seen)

    def _upsert(self, session: Session, sight: _Sight, count: int) -> None:
        said = {"address": sight.address, "wanted": sight.wanted, "last_seen_at": sight.last_at}
        row = {"fingerprint": sight.key.fingerprint, "blob": sight.key.blob_base64, "first_seen_at": sight.first_at}
        added = insert(session, RefusedKey).values(**row, **said, count=count)
        again = {**said, "count": RefusedKey.count + count}
        session.execute(added.on_conflict_do_update(index_elements=["fingerprint"], set_=again))


_COLUMNS: Final = (
    RefusedKey.blob,
    RefusedKey.address,
    RefusedKey.wanted,
    RefusedKey.first_seen_at,
    RefusedKey.last_seen_at,
    RefusedKey.count,
)


def _refused(row: Any) -> Refused:
    blob, *rest = row
    return Refused(PublicKey.from_blob(blob), *rest)


def _role_for(scope: Scope) -> Role:
    """The least role that has all of the actions."""
    return next(role for role in Role if set(scope.actions) <= role.actions or role is Role.ADMIN)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:_MAX_WANTED])
