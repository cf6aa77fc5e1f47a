"""The places where blobs wait that belong to no repository yet."""

from __future__ import annotations

import pytest

from storage.digest import Digest
from storage.errors import NameInvalid, NameTaken, NameUnknown
from storage.reference import HOLDING, HoldingName, ModelName, RepositoryName


def test_each_principal_has_a_place_of_its_own_and_always_the_same():
    assert HoldingName.of("token:a") == HoldingName.of("token:a")
    assert HoldingName.of("token:a") != HoldingName.of("token:b")


@pytest.mark.parametrize("parse", [RepositoryName.parse, ModelName.parse])
def test_no_request_can_name_a_place(parse):
    with pytest.raises(NameInvalid):
        parse(str(HoldingName.of("anonymous")))


@pytest.mark.parametrize("text", ["library/model", f"{HOLDING}/x", HOLDING, f"{HOLDING}/{'A' * 64}", ""])
def test_a_place_is_nothing_else(text):
    with pytest.raises(NameInvalid):
        HoldingName(text)


def test_a_staged_blob_is_named_by_no_list(store):
    digest = store.blobs.put(HoldingName.of("anonymous"), b"bytes", principal="anonymous").digest

    assert store.blobs.holders(digest) == []
    assert store.namespaces.list() == []
    assert store.repositories.catalog() == ([], False)
    assert store.repositories.tagged() == []


def test_the_namespace_of_the_places_is_nobodys(store):
    store.blobs.put(HoldingName.of("anonymous"), b"bytes", principal="anonymous")

    with pytest.raises(NameUnknown):
        store.namespaces.get(HOLDING)
    with pytest.raises(NameUnknown):
        store.namespaces.set_private(HOLDING, False)
    with pytest.raises((NameInvalid, NameTaken)):
        store.namespaces.create(HOLDING)


def test_a_staged_blob_is_mounted_into_a_repository_by_who_knows_the_place(store, name):
    place = HoldingName.of("anonymous")
    digest = store.blobs.put(place, b"bytes", principal="anonymous").digest

    assert store.blobs.mount(digest, source=place, into=name)

    assert store.blobs.holders(digest) == [name]
    with store.blobs.open(name, digest) as file:
        assert file.read() == b"bytes"


def test_a_place_does_not_keep_others_from_the_sweep(store):
    place = HoldingName.of("anonymous")
    digest = store.blobs.put(place, b"bytes", principal="anonymous").digest
    store.blobs.unlink(place, digest)

    assert store.collector.sweep().objects == 1
    assert Digest.of(b"bytes") == digest
