"""Many blobs linked into another repository at once."""

from __future__ import annotations

import pytest

from storage.digest import Digest
from storage.errors import BlobUnknown, NameUnknown
from storage.mounts import mount_all
from storage.reference import RepositoryName

OTHER = RepositoryName("team/other")


def test_all_that_the_source_holds_is_linked_and_leased(store, name):
    digests = [store.blobs.put(name, b"%d" % number).digest for number in range(1100)]  # more than one statement takes

    mount_all(store.database, digests, source=name, into=OTHER, principal="somebody")

    assert all(store.blobs.stat(OTHER, digest).size for digest in digests)
    for digest in digests[:3]:
        store.blobs.unlink(name, digest)
    store.collector.sweep()
    assert all(store.blobs.stat(OTHER, digest) for digest in digests[:3])


def test_bytes_are_not_copied(store, name):
    digest = store.blobs.put(name, b"bytes").digest

    mount_all(store.database, [digest], source=name, into=OTHER)

    assert store.blobs.stat(OTHER, digest).key == store.blobs.stat(name, digest).key


def test_what_the_source_does_not_hold_is_left_out(store, name):
    held = store.blobs.put(name, b"held").digest
    theirs = store.blobs.put(RepositoryName("team/third"), b"theirs").digest

    mount_all(store.database, [held, theirs, Digest.of(b"absent")], source=name, into=OTHER)

    assert store.blobs.stat(OTHER, held)
    for digest in (theirs, Digest.of(b"absent")):
        with pytest.raises(BlobUnknown):
            store.blobs.stat(OTHER, digest)


def test_a_source_that_is_not_there_holds_nothing(store, name):
    mount_all(store.database, [Digest.of(b"x")], source=name, into=OTHER)

    with pytest.raises((BlobUnknown, NameUnknown)):
        store.blobs.stat(OTHER, Digest.of(b"x"))
