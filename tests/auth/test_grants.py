from __future__ import annotations

import pytest
from sqlalchemy import delete, func, select

from auth.errors import GrantInvalid, GrantUnknown, SignatureInvalid
from auth.grants import stored_privacy
from auth.identity import Role
from auth.keys import PrivateKey
from auth.models import UsedNonce
from auth.nonces import Nonces
from storage.db import Database
from storage.models import Namespace
from tests.auth.vectors import FINGERPRINT, NONCE, TS


def test_a_key_may_do_what_it_was_granted_where_it_was(grants, key):
    grants.add("alice", key.public, "push", comment="laptop")
    grants.add("bob", key.public, "pull")

    assert grants.roles_of(FINGERPRINT) == {"alice": Role.PUSH, "bob": Role.PULL}
    assert [(each.namespace, each.fingerprint, each.role, each.comment) for each in grants.list()] == [
        ("alice", FINGERPRINT, "push", "laptop"),
        ("bob", FINGERPRINT, "pull", ""),
    ]
    assert len(grants.list("bob")) == 1


def test_a_second_grant_replaces_the_first(grants, key):
    grants.add("alice", key.public, "admin")

    grants.add("alice", key.public, "pull")

    assert grants.roles_of(FINGERPRINT) == {"alice": Role.PULL}


def test_grants_are_taken_back_one_or_all(grants, key):
    for namespace in ("alice", "bob", "public"):
        grants.add(namespace, key.public, "push")
    other = PrivateKey.generate().public
    grants.add("bob", other, "push")

    assert grants.remove(FINGERPRINT, namespace="bob") == 1
    assert set(grants.roles_of(FINGERPRINT)) == {"alice", "public"}
    assert grants.remove(FINGERPRINT) == 2
    assert grants.remove(FINGERPRINT) == 0
    assert grants.roles_of(other.fingerprint) == {"bob": Role.PUSH}


def test_grants_go_with_their_namespace(grants, key, database):
    grants.add("alice", key.public, "push")

    with database.write() as transaction:
        transaction.execute(delete(Namespace).where(Namespace.name == "alice"))

    assert not grants.holder(FINGERPRINT).is_known


def test_a_grant_needs_a_namespace_and_a_role(grants, key):
    with pytest.raises(GrantUnknown, match="tonnage namespace create nowhere"):
        grants.add("nowhere", key.public, "push")
    with pytest.raises(GrantInvalid):
        grants.add("alice", key.public, "owner")


@pytest.mark.parametrize("text", ["", "x", "SHA256:", FINGERPRINT + "=", FINGERPRINT.lower()])
def test_what_is_no_fingerprint_has_no_roles(grants, text):
    assert grants.roles_of(text) == {}


@pytest.mark.parametrize(("namespace", "is_private"), [("public", False), ("alice", True), ("nowhere", True)])
def test_a_namespace_that_does_not_exist_looks_private(database, namespace, is_private):
    assert stored_privacy(database)(namespace) is is_private


def test_a_nonce_counts_once_in_all_processes(database, database_url):
    other = Database(database_url)
    Nonces(database).use(FINGERPRINT, NONCE, TS)

    with pytest.raises(SignatureInvalid):
        Nonces(other).use(FINGERPRINT, NONCE, TS + 1)
    Nonces(other).use(FINGERPRINT, NONCE + "x", TS)
    Nonces(other).use(FINGERPRINT.replace("l", "m"), NONCE, TS)
    other.close()


def test_nonces_are_forgotten_when_their_requests_are_too_old(database):
    nonces = Nonces(database)
    for i in range(5):
        nonces.use(FINGERPRINT, f"{NONCE}{i}", TS)

    nonces.use(FINGERPRINT, f"{NONCE}9", TS + 600)
    with database.read() as transaction:
        assert transaction.scalar(select(func.count()).select_from(UsedNonce)) == 6
    nonces.use(FINGERPRINT, NONCE, TS + 700)
    with database.read() as transaction:
        assert transaction.scalar(select(func.count()).select_from(UsedNonce)) == 2
