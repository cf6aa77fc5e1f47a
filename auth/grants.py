"""Which key may do what in which namespace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from auth.errors import GrantInvalid, GrantUnknown
from auth.identity import KeyHolder, Role
from auth.keys import PublicKey, is_fingerprint
from auth.models import KeyGrant
from storage.db import Database, HotQuery, insert
from storage.models import Namespace

_MAX_ROLES = 1000  # namespaces one key may be let into; more would slow each of its requests

# Asked on most requests.
_ROLES = HotQuery(
    select(Namespace.name, KeyGrant.role)
    .join(Namespace, Namespace.id == KeyGrant.namespace_id)
    .where(KeyGrant.fingerprint == bindparam("fingerprint"))
    .order_by(Namespace.name)
    .limit(_MAX_ROLES)
)
_PRIVACY = HotQuery(select(Namespace.is_private).where(Namespace.name == bindparam("namespace")))


@dataclass(frozen=True, slots=True)
class Grant:
    """One row: `fingerprint` may do `role` in `namespace`."""

    namespace: str
    fingerprint: str
    blob: str
    role: Role
    comment: str
    created_at: float


class KeyGrants:
    """The grants of keys, as rows."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def add(self, namespace: str, key: PublicKey, role: str, *, comment: str = "") -> Grant:
        """Let `key` into `namespace`, or change what it may do there. Raises GrantUnknown, GrantInvalid."""
        grant = Grant(namespace, key.fingerprint, key.blob_base64, _role(role), comment[:255], self._now())
        values = {"blob": grant.blob, "role": str(grant.role), "comment": grant.comment, "created_at": grant.created_at}
        with self._database.write() as transaction:
            namespace_id = transaction.scalar(select(Namespace.id).where(Namespace.name == namespace))
            if namespace_id is None:
                raise GrantUnknown(
                    f"no namespace {namespace}; create it with: tonnage namespace create {namespace}", name=namespace
                )
            row = insert(transaction, KeyGrant).values(
                namespace_id=namespace_id, fingerprint=grant.fingerprint, **values
            )
            again = row.on_conflict_do_update(index_elements=["namespace_id", "fingerprint"], set_=values)
            transaction.execute(again)
        return grant

    def list(self, namespace: str | None = None) -> tuple[Grant, ...]:
        """Every grant, or those of one namespace, by namespace and fingerprint."""
        columns = (KeyGrant.fingerprint, KeyGrant.blob, KeyGrant.role, KeyGrant.comment, KeyGrant.created_at)
        query = select(Namespace.name, *columns).join(Namespace, Namespace.id == KeyGrant.namespace_id)
        if namespace is not None:
            query = query.where(Namespace.name == namespace)
        with self._database.read() as transaction:
            rows = transaction.execute(query).all()
        grants = (Grant(name, print_, blob, Role(role), note, at) for name, print_, blob, role, note, at in rows)
        return tuple(sorted(grants, key=lambda grant: (grant.namespace, grant.fingerprint)))

    def remove(self, fingerprint: str, *, namespace: str | None = None) -> int:
        """Take the key's grant in `namespace`, or all it has; returns how many there were."""
        query = delete(KeyGrant).where(KeyGrant.fingerprint == fingerprint)
        if namespace is not None:
            ids = select(Namespace.id).where(Namespace.name == namespace)
            query = query.where(KeyGrant.namespace_id.in_(ids))
        with self._database.write() as transaction:
            gone = transaction.execute(query.returning(KeyGrant.namespace_id)).all()
        return len(gone)

    def roles_of(self, fingerprint: str) -> dict[str, Role]:
        """Namespace → role; empty for a key that nobody let in."""
        if not is_fingerprint(fingerprint):
            return {}
        return {name: Role(role) for name, role in self._database.all(_ROLES, fingerprint=fingerprint)}

    def holder(self, fingerprint: str) -> KeyHolder:
        """Who the key makes its holder: nobody we know if it was granted nothing."""
        return KeyHolder(fingerprint=fingerprint, roles=self.roles_of(fingerprint))


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise GrantInvalid(f"a role is one of {', '.join(Role)}, not {text!r}") from None


def stored_privacy(database: Database) -> Callable[[str], bool]:
    """Whether a namespace is private, as the rows say now; one that does not exist is."""

    def is_private(namespace: str) -> bool:
        found = database.first(_PRIVACY, namespace=namespace)
        return found is None or bool(found[0])

    return is_private
