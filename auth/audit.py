"""Who changed what, who was refused, who pulled a private model: rows that are added, never changed, and pruned by age.

Secrets, signatures and nonces are in none of them.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count as counter
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from auth.identity import Identity, TokenHolder
from auth.models import AuditRow
from auth.peers import site_of
from auth.tallies import Tallies
from storage.db import Database
from storage.models import Namespace

KEPT_S: Final = 400 * 86400
MAX_ROWS: Final = 1_000_000

_PAGE: Final = 500
_PRUNE_BATCH: Final = 2000
_PRUNE_ROUNDS: Final = 100  # in one turn
_MAX_KINDS: Final = 2000  # told apart within a minute
_MAX_WAITING: Final = 1000
_LENGTHS: Final = {
    "who": 128, "namespace": 255, "repository": 255, "reference": 255, "detail": 500, "address": 64, "request_id": 64,
}  # fmt: skip  # characters, as the columns have them


class What(StrEnum):
    """Everything that is worth a row."""

    NAMESPACE_CREATE = "namespace.create"
    NAMESPACE_CHANGE = "namespace.change"
    KEY_ADD = "key.add"
    KEY_CHANGE = "key.change"
    KEY_REMOVE = "key.remove"
    TOKEN_CREATE = "token.create"  # noqa: S105  # a word, not a secret
    TOKEN_REVOKE = "token.revoke"  # noqa: S105
    MIRROR_CHANGE = "mirror.change"
    SIGNING_KEY_ROTATE = "signing-key.rotate"
    SIGNING_KEY_WITHDRAW = "signing-key.withdraw"
    PUSH = "push"
    TAG_MOVE = "tag.move"  # a tag that named another manifest before
    DELETE_TAG = "delete.tag"
    DELETE_MANIFEST = "delete.manifest"
    DELETE_BLOB = "delete.blob"
    DELETE_MODEL = "delete.model"
    PULL_MODEL = "pull.model"  # from another registry into this one
    PUSH_MODEL = "push.model"  # from this one to another: what it holds is disclosed
    IMPORT_MODEL = "import.model"  # from an archive into this registry
    EXPORT_MODEL = "export.model"  # from this registry into an archive
    PULL = "pull"  # of what is private
    REFUSE = "refuse"


FREE: Final = (What.PULL, What.REFUSE)
"""What costs nothing to do often: counted together, and the first to go when there are too many rows."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row. at: Unix seconds. namespace: that of the repository, where there is one. count: how often within a
    minute; the rest is told of the last time.
    """

    what: What
    who: str
    at: float
    namespace: str | None = None
    repository: str | None = None
    reference: str | None = None
    detail: str | None = None
    address: str = ""
    request_id: str = ""
    count: int = 1


_COLUMNS: Final = (
    AuditRow.what, AuditRow.who, AuditRow.at, AuditRow.namespace, AuditRow.repository, AuditRow.reference,
    AuditRow.detail, AuditRow.address, AuditRow.request_id, AuditRow.count,
)  # fmt: skip


class AuditTrail:
    """The rows of the past, those that are written now, and those that will be in a moment, through `auth.later`."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time, max_rows: int = MAX_ROWS) -> None:
        self._database, self._now, self._max_rows = database, now, max_rows
        self._counted: Tallies[tuple[object, ...], Event] = Tallies(_MAX_KINDS)
        self._waiting: Tallies[tuple[object, ...], Event] = Tallies(_MAX_WAITING)
        self._numbers = counter()

    def write(self, *events: Event) -> None:
        """Now, in one transaction. Raises StorageError."""
        with self._database.write() as session:
            self.add(session, *events)

    def add(self, session: Session, *events: Event) -> None:
        """Within a transaction that does what the events tell of."""
        if events:
            session.execute(insert(AuditRow), [_row(event) for event in events])

    def count(self, event: Event) -> None:
        """In a moment; what is alike within a minute becomes one row with a count.

        A pull of what is public is left out then: to look now would cost every pull a query.
        """
        if not self._counted.add(_kind(event), event):
            anywhere = replace(event, who="many", address="", reference=None, detail="from too many to tell apart")
            self._waiting.add((event.what,), anywhere)

    def keep(self, *events: Event) -> None:
        """In a moment, each as a row of its own, for what the database did not take. Too many at once are lost."""
        for event in events:
            self._waiting.add((next(self._numbers),), event)

    def take(self, limit: int, *, everything: bool = False) -> Sequence[Any]:
        """What is to be written now, as `put` and `give_back` take it."""
        waiting = [(self._waiting, each) for each in self._waiting.take(limit, everything=everything)]
        counted = self._counted.take(limit - len(waiting), everything=everything)
        return waiting + [(self._counted, each) for each in counted]

    def put(self, session: Session, taken: Sequence[Any]) -> None:
        events = [replace(event, count=count) for _, (_, event, count) in taken]
        pulled = {event.namespace for event in events if event.what is What.PULL}
        query = select(Namespace.name).where(Namespace.name.in_(pulled), Namespace.is_private.is_(False))
        public = set(session.scalars(query)) if pulled else set()
        self.add(session, *(e for e in events if e.what is not What.PULL or e.namespace not in public))

    def give_back(self, taken: Sequence[Any]) -> None:
        for tallies, each in taken:
            tallies.give_back([each])

    def __len__(self) -> int:
        return len(self._counted) + len(self._waiting)

    def events(
        self,
        *,
        since: float = 0.0,
        who: str | None = None,
        what: What | None = None,
        repository: str | None = None,
    ) -> Iterator[Event]:
        """The rows from `since` on, the oldest first, a page in memory at a time.

        repository: one, or with a single component all of that namespace.
        """
        query = select(AuditRow.id, *_COLUMNS).order_by(AuditRow.at, AuditRow.id)
        if who is not None:
            query = query.where(AuditRow.who == who)
        if what is not None:
            query = query.where(AuditRow.what == what)
        if repository is not None:
            column = AuditRow.repository if "/" in repository else AuditRow.namespace
            query = query.where(column == repository)
        after = (since, -1)  # both bounds in one, or SQLite would seek `since` anew for each page
        while True:  # each page begins after the one before, and ends with the rows
            page = query.where(tuple_(AuditRow.at, AuditRow.id) > tuple_(*after))
            with self._database.read() as session:
                rows = session.execute(page.limit(_PAGE)).all()
            for _, named, *rest in rows:
                yield Event(What(named), *rest)
            if len(rows) < _PAGE:
                return
            after = (rows[-1].at, rows[-1].id)

    def prune(self) -> int:
        """Remove rows that are too old or too many, in short transactions; how many. The rest waits for the next turn.

        Where there are too many, pulls and refusals go first until they are half of all: a stranger can make as many
        as they like, and must not drive out what tells of changes.
        """
        old = [AuditRow.at < self._now() - KEPT_S]
        removed = self._remove(old, _PRUNE_BATCH * _PRUNE_ROUNDS)
        excess = self._excess()
        if excess > 0:
            is_free = [AuditRow.what.in_(FREE)]
            with self._database.read() as session:
                free = session.scalar(select(func.count()).select_from(AuditRow).where(*is_free)) or 0
            of_free = self._remove(is_free, min(excess, max(0, free - self._max_rows // 2)))
            removed += of_free + self._remove([], excess - of_free)
        return removed

    def _excess(self) -> int:
        with self._database.read() as session:
            first, last = session.execute(select(func.min(AuditRow.id), func.max(AuditRow.id))).one()
            if first is None or last - first < self._max_rows:
                return 0  # cheap to see, and nearly always so
            return (session.scalar(select(func.count()).select_from(AuditRow)) or 0) - self._max_rows

    def _remove(self, where: list[Any], limit: int) -> int:
        """The oldest of those rows, `limit` at most."""
        removed = 0
        for _ in range(_PRUNE_ROUNDS):
            batch = min(_PRUNE_BATCH, limit - removed)
            if batch <= 0:
                break
            oldest = select(AuditRow.id).where(*where).order_by(AuditRow.at, AuditRow.id).limit(batch)
            gone = delete(AuditRow).where(AuditRow.id.in_(oldest))
            with self._database.write() as session:
                count = len(session.execute(gone.returning(AuditRow.id)).all())
            removed += count
            if count < batch:
                break
        return removed


def who_is(identity: Identity) -> str:
    """An identity as the trail names it: a token by the name that an administrator gave it."""
    return f"token:{identity.name}" if isinstance(identity, TokenHolder) else identity.principal


def system_user() -> str:
    """Whoever runs this process, as the trail names them."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container's user without an entry
        return f"cli:{os.getuid()}"


def _kind(event: Event) -> tuple[object, ...]:
    """What is alike: refusals of an address, whoever asks there, as keys are free; pulls of one thing by one holder."""
    kind: tuple[object, ...] = (event.what, site_of(event.address))
    return kind if event.what is What.REFUSE else (*kind, event.who, event.repository, event.reference)


def _row(event: Event) -> dict[str, object]:
    row: dict[str, object] = {"at": event.at, "what": str(event.what), "count": event.count}
    for name, length in _LENGTHS.items():
        text = getattr(event, name)
        row[name] = text if text is None else _printable(text[:length])
    return row


def _printable(text: str) -> str:
    """Without what moves a terminal's cursor, and without NUL and half characters, which databases refuse."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
