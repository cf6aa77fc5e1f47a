"""A push that moves its tag only from where it expects it."""

from __future__ import annotations

import json
import threading

import pytest

from storage.digest import Digest
from storage.errors import NameUnknown, TagMoved
from storage.manifest import OCI_MANIFEST
from storage.manifests import TagCondition
from storage.reference import RepositoryName, Tag
from storage.store import Store

CONFIG = b"{}"
NEW, ANY = TagCondition(none_of=frozenset("*")), TagCondition(one_of=frozenset("*"))
PUSHERS = 6


def manifest(note: str) -> bytes:
    config = {"mediaType": "application/octet-stream", "digest": str(Digest.of(CONFIG)), "size": len(CONFIG)}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [], "annotations": {"n": note}}).encode()


def push(store: Store, name: RepositoryName, note: str, condition: TagCondition | None) -> Digest:
    store.blobs.put(name, CONFIG)
    raw = manifest(note)
    return store.repositories.put_manifest(name, Tag("v1"), raw, OCI_MANIFEST, condition=condition).digest


def of(digest: Digest) -> frozenset[str]:
    return frozenset({str(digest)})


def test_a_new_tag_may_be_asked_for_once(store, name):
    first = push(store, name, "a", NEW)

    with pytest.raises(TagMoved) as refused:
        push(store, name, "b", NEW)

    assert refused.value.detail["digest"] == str(first)
    assert store.repositories.get_manifest(name, Tag("v1")).digest == first


def test_a_tag_moves_from_where_it_was_seen(store, name):
    with pytest.raises(TagMoved):
        push(store, name, "a", ANY)
    first = push(store, name, "a", None)

    second = push(store, name, "b", TagCondition(one_of=of(first)))

    for condition in (TagCondition(one_of=of(first)), TagCondition(none_of=of(second))):
        with pytest.raises(TagMoved):
            push(store, name, "c", condition)
    assert push(store, name, "c", TagCondition(one_of=of(first) | of(second), none_of=of(first)))
    assert push(store, name, "d", ANY)


def test_a_refused_push_leaves_no_repository(store):
    fresh = RepositoryName("team/fresh")

    with pytest.raises(TagMoved):
        store.repositories.put_manifest(fresh, Tag("v1"), manifest("a"), OCI_MANIFEST, condition=ANY)

    with pytest.raises(NameUnknown):
        store.repositories.get_manifest(fresh, Tag("v1"))


def test_of_many_at_once_exactly_one_moves_it(store, name):
    before = push(store, name, "before", None)
    moved, refused = list[str](), list[str]()

    def race(note: str) -> None:
        try:
            push(store, name, note, TagCondition(one_of=of(before)))
            moved.append(note)
        except TagMoved:
            refused.append(note)

    threads = [threading.Thread(target=race, args=(f"{number}",)) for number in range(PUSHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (len(moved), len(refused)) == (1, PUSHERS - 1)
    assert store.repositories.get_manifest(name, Tag("v1")).digest == Digest.of(manifest(moved[0]))
