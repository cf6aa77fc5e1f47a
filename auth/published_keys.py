"""The public halves of the keys that nodes sign with, in rows: what one node signed, every node believes.

The other half never leaves its node. Whoever reads the database can check what was signed, and sign nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, select

from auth.errors import KeyInvalid, SigningKeyUnknown
from auth.key_set import key_id
from auth.keys import PublicKey
from auth.models import SigningKey
from storage.db import Database, HotQuery, Upsert

KEPT_S: Final = 3 * 24 * 3600.0  # without a word of its node: longer than anything that it signed is good for
FRESH_S: Final = 10.0  # a process learns so soon that a key is believed no more
_MAX_KNOWN: Final = 256
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16}")

_PUBLISH: Final = Upsert(
    SigningKey,
    lambda row: row.on_conflict_do_update(index_elements=["id"], set_={"seen_at": row.excluded.seen_at}),
)
_BY_ID: Final = HotQuery(select(SigningKey.blob, SigningKey.seen_at).where(SigningKey.id == bindparam("key_id")))


@dataclass(frozen=True, slots=True)
class SaidKey:
    """A key that some node signs with. seen_at: when that node last said so, in Unix seconds."""

    id: str
    seen_at: float


class PublishedKeys:
    """The keys of every node of one database."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, now
        self._known: dict[str, tuple[PublicKey, float]] = {}

    def publish(self, keys: Iterable[PublicKey], *, instead_of: Collection[PublicKey] = ()) -> None:
        """These are in use here; those that they replace are believed no more, nor are those of nodes long gone."""
        now = self._now()
        rows = [{"id": key_id(key), "blob": key.blob_base64, "seen_at": now} for key in keys]
        gone = {key_id(key) for key in instead_of} - {row["id"] for row in rows}
        with self._database.begin() as connection:
            connection.execute(delete(SigningKey).where(SigningKey.seen_at < now - KEPT_S))
            if gone:
                connection.execute(delete(SigningKey).where(SigningKey.id.in_(sorted(gone))))
            for row in sorted(rows, key=lambda row: str(row["id"])):  # nodes that share keys take them in one order
                connection.execute(_PUBLISH.on(connection), row)

    def list(self) -> list[SaidKey]:
        """Those that are believed, by when their node last said so."""
        kept = select(SigningKey.id, SigningKey.seen_at).where(SigningKey.seen_at >= self._now() - KEPT_S)
        with self._database.connect() as connection:
            return [SaidKey(*row) for row in connection.execute(kept.order_by(SigningKey.seen_at, SigningKey.id))]

    def withdraw(self, key_id: str) -> None:
        """Let nobody believe the key of a node that is gone; one that runs says it again. Raises SigningKeyUnknown."""
        gone = delete(SigningKey).where(SigningKey.id == key_id).returning(SigningKey.id)
        found = None
        if _ID.fullmatch(key_id):
            with self._database.begin() as connection:
                found = connection.execute(gone).first()
        if found is None:
            raise SigningKeyUnknown("no node signs with such a key; list them with: tonnage token signing-keys")

    def find(self, wanted: str) -> PublicKey | None:
        """The key with that id; None if no node signs with it. Raises StorageUnavailable."""
        now = self._now()
        key, until = self._known.get(wanted, (None, 0.0))
        if key is not None and now < until:
            return key
        key = self._look(wanted, now) if _ID.fullmatch(wanted) else None
        if key is None:
            self._known.pop(wanted, None)
            return None
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[wanted] = (key, now + FRESH_S)
        return key

    def _look(self, wanted: str, now: float) -> PublicKey | None:
        row = self._database.first(_BY_ID, key_id=wanted)
        if row is None or row[1] < now - KEPT_S:
            return None
        try:
            key = PublicKey.from_blob(row[0])
        except KeyInvalid:
            return None
        return key if key_id(key) == wanted else None
