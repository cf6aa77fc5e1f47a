"""Blobs are seen through links, kept by leases, and never taken from under a manifest."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import delete, func, select, true, update

from storage.blobs import LEASE_S
from storage.digest import Digest
from storage.errors import BlobReferenced, BlobUnknown, NameUnknown
from storage.manifest import OCI_MANIFEST
from storage.models import BlobLink, Object
from storage.reference import RepositoryName, Tag

OTHER = RepositoryName("else/where")
UNKNOWN = Digest.of(b"unknown")


def leases(store) -> tuple[float, float]:
    with store.database.read() as session:
        return session.execute(select(Object.lease_until, BlobLink.lease_until).join(BlobLink, true())).one()


def test_a_stored_blob_is_found_and_read_from_anywhere_within(store, name):
    blob = store.blobs.put(name, b"0123456789")

    assert store.blobs.stat(name, blob.digest) == blob
    with store.blobs.open(name, blob.digest, start=4) as reader:
        assert reader.read() == b"456789"
    assert store.blobs.local_path(name, blob.digest).read_bytes() == b"0123456789"


def test_putting_the_same_bytes_again_keeps_one_copy(store, name):
    first = store.blobs.put(name, b"x")

    assert store.blobs.put(OTHER, b"x") == first
    assert store.blobs.put(name, b"x", algorithm="sha512").key == first.key
    assert list(store.driver.keys("")) == [first.key]


def test_a_blob_elsewhere_is_unknown_here(store, name):
    blob = store.blobs.put(name, b"x")
    store.blobs.put(OTHER, b"y")

    for call in (
        store.blobs.stat,
        store.blobs.open,
        store.blobs.local_path,
        store.blobs.unlink,
        store.blobs.renew_lease,
    ):
        with pytest.raises(BlobUnknown):
            call(OTHER, blob.digest)
        with pytest.raises(NameUnknown):
            call(RepositoryName("no/such"), blob.digest)


def test_a_sha512_is_another_identity_than_the_sha256_of_its_bytes(store, name):
    store.blobs.put(name, b"x")

    with pytest.raises(BlobUnknown):
        store.blobs.stat(name, Digest.of(b"x", "sha512"))


def test_a_mount_links_what_its_source_holds(store, name):
    blob = store.blobs.put(name, b"x")

    assert store.blobs.mount(blob.digest, source=name, into=OTHER)
    assert store.blobs.stat(OTHER, blob.digest) == blob
    assert store.blobs.holders(blob.digest) == [OTHER, name]


@pytest.mark.parametrize("source", ["team/model", "else/where", "no/such"])
def test_a_mount_of_what_its_source_does_not_hold_does_nothing(store, name, source):
    store.blobs.put(name, b"x")

    assert not store.blobs.mount(UNKNOWN, source=RepositoryName(source), into=RepositoryName("new/one"))
    assert store.blobs.holders(UNKNOWN) == []
    with pytest.raises(NameUnknown):
        store.repositories.tags(RepositoryName("new/one"))


def test_an_unlinked_blob_is_gone_here_and_stays_elsewhere(store, name):
    blob = store.blobs.put(name, b"x")
    store.blobs.put(OTHER, b"x")

    store.blobs.unlink(name, blob.digest)

    with pytest.raises(BlobUnknown):
        store.blobs.stat(name, blob.digest)
    with pytest.raises(BlobUnknown):
        store.blobs.unlink(name, blob.digest)
    assert store.blobs.stat(OTHER, blob.digest) == blob


def test_a_blob_that_a_manifest_needs_stays(store, name):
    blob = store.blobs.put(name, b"{}")
    config = {"mediaType": "a/b", "digest": str(blob.digest), "size": 2}
    raw = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    manifest = store.repositories.put_manifest(name, Tag("t"), raw, OCI_MANIFEST)

    with pytest.raises(BlobReferenced):
        store.blobs.unlink(name, blob.digest)
    store.repositories.delete_manifest(name, Tag("t"))
    with pytest.raises(BlobReferenced):
        store.blobs.unlink(name, blob.digest)
    store.repositories.delete_manifest(name, manifest.digest)
    store.blobs.unlink(name, blob.digest)


def test_a_new_blob_is_leased_with_its_link(store, name):
    store.blobs.put(name, b"x")

    assert min(leases(store)) > time.time() + LEASE_S - 60


def test_a_lease_is_renewed_only_when_less_than_half_is_left(store, name):
    blob = store.blobs.put(name, b"x")
    fresh = leases(store)
    assert store.blobs.renew_lease(name, blob.digest) == blob
    assert leases(store) == fresh

    with store.database.write() as session:
        session.execute(update(BlobLink).values(lease_until=time.time() + LEASE_S / 3))
    store.blobs.renew_lease(name, blob.digest)

    assert min(leases(store)) >= min(fresh)


def test_a_blob_that_is_being_deleted_is_unknown_everywhere(store, name):
    blob = store.blobs.put(name, b"x")
    with store.database.write() as session:
        session.execute(update(Object).values(state="deleting"))

    for call in (store.blobs.stat, store.blobs.open, store.blobs.renew_lease, store.blobs.unlink):
        with pytest.raises(BlobUnknown):
            call(name, blob.digest)
    assert not store.blobs.mount(blob.digest, source=name, into=OTHER)
    assert store.blobs.holders(blob.digest) == []
    assert store.blobs.put(name, b"x").key != blob.key


def test_rows_that_something_needs_cannot_be_deleted(store, name):
    store.blobs.put(name, b"x")

    with pytest.raises(Exception, match=r"(?i)foreign key"), store.database.write() as session:
        session.execute(delete(Object))
    with store.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Object)) == 1
