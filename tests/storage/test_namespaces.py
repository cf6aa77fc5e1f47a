"""Namespaces."""

from __future__ import annotations

import pytest

from storage.errors import NameInvalid, NameTaken, NameUnknown


def test_a_namespace_is_private_unless_said_otherwise(store):
    created = store.namespaces.create("team")

    assert created.is_private
    assert store.namespaces.get("team") == created
    assert not store.namespaces.create("public", is_private=False).is_private
    assert [each.name for each in store.namespaces.list()] == ["public", "team"]


def test_a_namespace_changes_its_privacy(store):
    store.namespaces.create("team")

    store.namespaces.set_private("team", False)

    assert not store.namespaces.get("team").is_private


def test_a_namespace_exists_once(store):
    store.namespaces.create("team")

    with pytest.raises(NameTaken):
        store.namespaces.create("team")


@pytest.mark.parametrize("name", ["", "a/b", "A", "a\n", ".."])
def test_what_is_no_component_is_no_namespace(store, name):
    with pytest.raises(NameInvalid):
        store.namespaces.create(name)


def test_an_unknown_namespace_is_unknown(store):
    with pytest.raises(NameUnknown):
        store.namespaces.get("none")
    with pytest.raises(NameUnknown):
        store.namespaces.set_private("none", True)


def test_a_first_push_makes_a_private_namespace(store, name):
    store.blobs.put(name, b"x")

    assert store.namespaces.get("team").is_private
