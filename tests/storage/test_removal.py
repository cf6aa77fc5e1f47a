"""Deleting a model by its name: the tag, and what only that tag kept."""

from __future__ import annotations

import json
from io import BytesIO

import pytest

from storage.digest import Digest
from storage.errors import ManifestUnknown, NameUnknown
from storage.gc import Swept
from storage.layout import BLOBS
from storage.manifest import OCI_INDEX, OCI_MANIFEST
from storage.reference import RepositoryName, Tag
from storage.store import Store

CONFIG = b"{}"
OTHER = RepositoryName("team/other")


def push(store: Store, name: RepositoryName, reference: Tag | None, *layers: bytes) -> Digest:
    """A manifest with these layers, by tag or alone; its blobs' leases end with it."""
    listed = []
    for data in (CONFIG, *layers):
        upload = store.uploads.start(name)
        upload.complete(BytesIO(data), Digest.of(data), length=len(data))
        listed.append({"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)})
    raw = json.dumps({"schemaVersion": 2, "config": listed[0], "layers": listed[1:]}).encode()
    return store.repositories.put_manifest(name, reference or Digest.of(raw), raw, OCI_MANIFEST).digest


def push_index(store: Store, name: RepositoryName, tag: str, *children: Digest) -> Digest:
    listed = [
        {"mediaType": OCI_MANIFEST, "digest": str(each), "size": len(store.repositories.get_manifest(name, each).raw)}
        for each in children
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()
    return store.repositories.put_manifest(name, Tag(tag), raw, OCI_INDEX).digest


def digests(*data: bytes) -> set[str]:
    return {str(Digest.of(each)) for each in data}


def test_the_last_tag_takes_the_manifest_along(store, name):
    digest = push(store, name, Tag("v1"), b"weights")

    assert store.repositories.remove_model(name, Tag("v1")) == digests(CONFIG, b"weights")

    with pytest.raises(ManifestUnknown):
        store.repositories.get_manifest(name, digest)


def test_a_manifest_that_lost_its_last_tag_can_be_removed(store, name):
    old = push(store, name, Tag("v1"), b"weights")
    push(store, name, Tag("v1"), b"others")

    assert store.repositories.remove_untagged(name, old) == digests(CONFIG, b"weights")

    with pytest.raises(ManifestUnknown):
        store.repositories.get_manifest(name, old)


def test_a_manifest_that_something_names_is_not_removed(store, name):
    tagged, listed = push(store, name, Tag("v1"), b"weights"), push(store, name, None, b"child")
    push_index(store, name, "all", listed)

    for digest in (tagged, listed, Digest.of(b"absent")):
        assert store.repositories.remove_untagged(name, digest) == set()

    assert store.repositories.get_manifest(name, tagged)
    assert store.repositories.get_manifest(name, listed)


def test_a_manifest_with_another_tag_stays(store, name):
    push(store, name, Tag("v1"), b"weights")
    digest = push(store, name, Tag("v2"), b"weights")

    assert store.repositories.remove_model(name, Tag("v1")) == set()

    assert store.repositories.get_manifest(name, Tag("v2")).digest == digest


def test_an_index_takes_the_children_that_nothing_else_names(store, name):
    alone, tagged, shared = (push(store, name, None, data) for data in (b"one", b"two", b"three"))
    assert push(store, name, Tag("kept"), b"two") == tagged
    push_index(store, name, "v1", alone, tagged, shared)
    push_index(store, name, "v2", shared)

    assert store.repositories.remove_model(name, Tag("v1")) == digests(CONFIG, b"one")

    assert store.repositories.get_manifest(name, tagged)
    assert store.repositories.get_manifest(name, shared)
    with pytest.raises(ManifestUnknown):
        store.repositories.get_manifest(name, alone)


def test_what_is_not_there_is_unknown(store, name):
    with pytest.raises(NameUnknown):
        store.repositories.remove_model(name, Tag("v1"))
    push(store, name, Tag("v1"))
    with pytest.raises(ManifestUnknown):
        store.repositories.remove_model(name, Tag("v2"))


def test_its_space_is_back_at_once_where_nobody_else_needs_it(store, name):
    push(store, name, Tag("v1"), b"weights", b"shared")
    push(store, OTHER, Tag("v1"), b"shared")
    store.uploads.start(name, principal="key:me").complete(BytesIO(b"adapter"), Digest.of(b"adapter"), length=7)
    kept = [store.blobs.stat(OTHER, Digest.of(data)).key for data in (CONFIG, b"shared")]
    leased = store.blobs.stat(name, Digest.of(b"adapter")).key

    unused = store.repositories.remove_model(name, Tag("v1"))
    swept = store.collector.reclaim(name, unused | digests(b"adapter"))

    assert swept == Swept(links=3, objects=1, size=len(b"weights"))
    assert set(store.driver.keys(BLOBS)) == {*kept, leased}
