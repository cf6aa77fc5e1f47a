"""Manifests byte for byte, tags, lists, referrers."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import pytest
from sqlalchemy import update

from storage.digest import Digest
from storage.errors import (
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    StorageError,
)
from storage.listing import Readable
from storage.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from storage.models import Object
from storage.reference import RepositoryName, Tag
from storage.store import Store

OTHER = RepositoryName("else/where")
V1 = Tag("v1")
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


def descriptor(data: bytes = b"{}", media_type: str = "application/x") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def image(*layers: bytes, **more: Any) -> bytes:
    body = {"schemaVersion": 2, "config": descriptor(), "layers": [descriptor(layer) for layer in layers], **more}
    return json.dumps(body).encode()


def index(*children: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": children, **more}).encode()


def of_manifest(raw: bytes) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(raw)), "size": len(raw)}


@pytest.fixture
def pushed(store: Store, name: RepositoryName) -> Store:
    """A store whose repository holds the config and three layers."""
    for data in (b"{}", b"1", b"2", b"3"):
        store.blobs.put(name, data)
    return store


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_comes_back_byte_for_byte(pushed, name, algorithm):
    raw = b"  " + image(b"1", custom={"b": 1, "a": 2}) + b"\n"
    digest = Digest.of(raw, algorithm)

    put = pushed.repositories.put_manifest(name, digest, raw, DOCKER_MANIFEST, tags=[V1, Tag("v2")])

    assert put.digest == digest
    for reference in (digest, V1, Tag("v2")):
        got = pushed.repositories.get_manifest(name, reference)
        assert (got.raw, got.digest, got.media_type) == (raw, digest, DOCKER_MANIFEST)
        assert got == put


def test_another_digest_than_the_bytes_have_is_refused(pushed, name):
    with pytest.raises(DigestInvalid):
        pushed.repositories.put_manifest(name, Digest.of(b"else"), image(), OCI_MANIFEST)


def test_a_tag_moves_to_the_last_manifest_pushed_under_it(pushed, name):
    first = pushed.repositories.put_manifest(name, V1, image(b"1"), OCI_MANIFEST)
    second = pushed.repositories.put_manifest(name, V1, image(b"2"), OCI_MANIFEST)

    assert pushed.repositories.get_manifest(name, V1).digest == second.digest
    assert pushed.repositories.get_manifest(name, first.digest).raw == first.raw


def test_the_same_push_again_changes_nothing(pushed, name):
    for _ in range(2):
        pushed.repositories.put_manifest(name, V1, image(b"1"), OCI_MANIFEST)

    assert pushed.repositories.tags(name) == (["v1"], False)
    assert len(pushed.repositories.tagged()) == 1


def test_missing_blobs_and_children_are_told_all_at_once_and_nothing_is_stored(pushed, name):
    with pytest.raises(ManifestBlobUnknown) as refusal:
        pushed.repositories.put_manifest(name, V1, image(b"1", b"no", b"nor this"), OCI_MANIFEST)
    assert refusal.value.detail["missing"] == [descriptor(b"no"), descriptor(b"nor this")]

    with pytest.raises(ManifestBlobUnknown):
        pushed.repositories.put_manifest(name, V1, index(of_manifest(image())), OCI_INDEX)
    with pytest.raises(ManifestUnknown):
        pushed.repositories.get_manifest(name, V1)


def test_a_blob_that_is_being_deleted_or_is_elsewhere_is_missing(pushed, name):
    pushed.blobs.put(OTHER, b"elsewhere")
    with pytest.raises(ManifestBlobUnknown):
        pushed.repositories.put_manifest(name, V1, image(b"elsewhere"), OCI_MANIFEST)
    with pushed.database.write() as session:
        session.execute(update(Object).values(state="deleting"))
    with pytest.raises(ManifestBlobUnknown):
        pushed.repositories.put_manifest(name, V1, image(b"1"), OCI_MANIFEST)


@pytest.mark.parametrize(
    "raw",
    [
        image(subject=of_manifest(b"never pushed")),
        image(layers=[descriptor(b"foreign", FOREIGN)]),
        index(descriptor(b"1")),  # a child that is only a blob
        index(),
    ],
)
def test_what_need_not_be_here_is_not_asked_for(pushed, name, raw):
    assert pushed.repositories.put_manifest(name, V1, raw).raw == raw


def test_an_index_of_manifests_that_are_here_is_stored(pushed, name):
    child = pushed.repositories.put_manifest(name, Digest.of(image()), image(), OCI_MANIFEST)

    pushed.repositories.put_manifest(name, V1, index(of_manifest(child.raw)), OCI_INDEX)

    with pytest.raises(StorageError):
        pushed.blobs.unlink(name, Digest.of(b"{}"))


def test_a_sparse_manifest_is_stored_and_holds_its_blobs_when_they_come(store, name):
    store.repositories.put_manifest(name, V1, image(b"1"), OCI_MANIFEST, allow_sparse=True)
    store.blobs.put(OTHER, b"1")
    store.blobs.mount(Digest.of(b"1"), source=OTHER, into=name)

    with pytest.raises(StorageError):
        store.blobs.unlink(name, Digest.of(b"1"))


@pytest.mark.parametrize("others", [[], [descriptor(b"1")]])
def test_a_size_that_is_not_the_blobs_is_refused(pushed, name, others):
    raw = image(layers=[descriptor(b"1") | {"size": 2}, *others])
    with pytest.raises(ManifestInvalid):
        pushed.repositories.put_manifest(name, V1, raw, OCI_MANIFEST)


def test_unknown_names_tags_and_digests(pushed, name):
    for reference in (V1, Digest.of(b"no")):
        for call in (pushed.repositories.get_manifest, pushed.repositories.delete_manifest):
            with pytest.raises(ManifestUnknown):
                call(name, reference)
            with pytest.raises(NameUnknown):
                call(OTHER, reference)


def test_deleting_a_tag_leaves_the_manifest(pushed, name):
    put = pushed.repositories.put_manifest(name, V1, image(), OCI_MANIFEST, tags=[Tag("v2")])

    pushed.repositories.delete_manifest(name, V1)

    assert pushed.repositories.tags(name) == (["v2"], False)
    assert pushed.repositories.get_manifest(name, put.digest) == put


def test_deleting_a_manifest_takes_its_tags_and_a_push_revives_it(pushed, name):
    put = pushed.repositories.put_manifest(name, put_reference := V1, image(), OCI_MANIFEST, tags=[Tag("v2")])

    pushed.repositories.delete_manifest(name, put.digest)

    assert pushed.repositories.tags(name) == ([], False)
    for reference in (put_reference, put.digest):
        with pytest.raises(ManifestUnknown):
            pushed.repositories.get_manifest(name, reference)
    pushed.repositories.put_manifest(name, V1, image(), OCI_MANIFEST)
    assert pushed.repositories.get_manifest(name, V1).raw == put.raw


def test_a_tag_is_found_whatever_its_case_but_its_own_case_first(pushed, name):
    pushed.repositories.put_manifest(name, Tag("Q4_K"), image(b"1"), OCI_MANIFEST)
    assert pushed.repositories.resolve_tag(name, Tag("q4_k")) == Tag("Q4_K")

    pushed.repositories.put_manifest(name, Tag("q4_k"), image(b"2"), OCI_MANIFEST)
    assert pushed.repositories.resolve_tag(name, Tag("q4_k")) == Tag("q4_k")
    assert pushed.repositories.resolve_tag(name, Tag("Q4_K")) == Tag("Q4_K")
    with pytest.raises(ManifestUnknown):
        pushed.repositories.resolve_tag(name, Tag("q4"))
    with pytest.raises(NameUnknown):
        pushed.repositories.resolve_tag(OTHER, Tag("q4"))


TAGS = sorted(["A", "B", "Z", "a", "a-", "a.", "a0", "a_", "b", "_", "0", "10", "9", "v1.0", "v1-0"])


@pytest.fixture
def tagged(pushed: Store, name: RepositoryName) -> Store:
    shuffled = random.Random(1).sample(TAGS, len(TAGS))
    pushed.repositories.put_manifest(name, V1, image(), OCI_MANIFEST, tags=[Tag(text) for text in shuffled])
    pushed.repositories.delete_manifest(name, V1)
    return pushed


@pytest.mark.parametrize(
    ("n", "last", "expected"),
    [
        (None, None, (TAGS, False)),
        (0, None, ([], False)),
        (3, None, (TAGS[:3], True)),
        (len(TAGS), None, (TAGS, False)),
        (2, TAGS[4], (TAGS[5:7], True)),
        (None, TAGS[4], (TAGS[5:], False)),
        (5, TAGS[-3], (TAGS[-2:], False)),
        (None, "a/", ([tag for tag in TAGS if tag > "a/"], False)),
        (None, "zzz", ([], False)),
        (None, "\0\ud800", (TAGS, False)),
        (10**12, None, (TAGS, False)),
    ],
)
def test_tags_come_in_byte_order_page_by_page(tagged, name, n, last, expected):
    if last == "\0\ud800":
        expected = ([tag for tag in TAGS if tag > "?"], False)
    assert tagged.repositories.tags(name, n=n, last=last) == expected


def test_the_tags_of_an_unknown_repository_are_unknown_and_of_an_empty_one_none(pushed, name):
    assert pushed.repositories.tags(name) == ([], False)
    with pytest.raises(NameUnknown):
        pushed.repositories.tags(OTHER)


def test_the_catalog_lists_repositories_with_manifests_that_the_caller_may_see(store):
    names = ["a/b", "a-b/c", "a/b-c", "pub/x", "z/z"]
    for text in names:
        store.repositories.put_manifest(RepositoryName(text), V1, index())
    store.uploads.start(RepositoryName("only/uploads"))
    store.namespaces.set_private("pub", False)

    assert store.repositories.catalog() == (sorted(names), False)
    assert store.repositories.catalog(n=2) == (sorted(names)[:2], True)
    assert store.repositories.catalog(last="a/b-c") == (["pub/x", "z/z"], False)
    assert store.repositories.catalog(readable=Readable()) == (["pub/x"], False)
    assert store.repositories.catalog(readable=Readable(frozenset({"a"}))) == (["a/b", "a/b-c", "pub/x"], False)


def test_tagged_manifests_come_page_by_page(pushed, name):
    pushed.repositories.put_manifest(name, V1, image(), OCI_MANIFEST, tags=[Tag("b"), Tag("A")])
    pushed.repositories.put_manifest(OTHER, V1, index())
    pages, after = [], None
    while rows := pushed.repositories.tagged(after=after, limit=2):
        pages += [(str(row.repository), str(row.tag)) for row in rows]
        after = rows[-1].repository, rows[-1].tag

    assert pages == [("else/where", "v1"), ("team/model", "A"), ("team/model", "b"), ("team/model", "v1")]


def test_referrers_tell_type_size_and_annotations_oldest_first(pushed, name):
    subject = of_manifest(image())
    raws = [
        image(subject=subject, annotations={"k": "v"}),
        image(b"1", subject=subject, artifactType="a/type+json"),
        index(subject=subject),
    ]
    for raw in (*raws, image(b"2", subject=of_manifest(b"another"))):
        pushed.repositories.put_manifest(name, Digest.of(raw), raw)
    pushed.repositories.put_manifest(name, V1, raws[0])

    found, has_more = pushed.repositories.referrers(name, Digest.of(image()))

    assert not has_more
    assert [each[1:] for each in found] == [
        (OCI_MANIFEST, str(Digest.of(raws[0])), len(raws[0]), "application/x", '{"k": "v"}'),
        (OCI_MANIFEST, str(Digest.of(raws[1])), len(raws[1]), "a/type+json", "{}"),
        (OCI_INDEX, str(Digest.of(raws[2])), len(raws[2]), None, "{}"),
    ]
    assert pushed.repositories.referrers(name, Digest.of(image()), "a/type+json") == (found[1:2], False)
    assert pushed.repositories.referrers(name, Digest.of(image()), "\0") == ([], False)
    assert pushed.repositories.referrers(name, Digest.of(b"unknown")) == ([], False)
    assert pushed.repositories.referrers(OTHER, Digest.of(image())) == ([], False)

    pushed.repositories.delete_manifest(name, Digest.of(raws[0]))
    assert pushed.repositories.referrers(name, Digest.of(image())) == (found[1:], False)


def test_a_manifest_with_very_many_layers_is_stored(store, name):
    layers = [descriptor(str(number).encode()) for number in range(5000)]
    raw = image(layers=layers)

    store.repositories.put_manifest(name, V1, raw, OCI_MANIFEST, allow_sparse=True)

    assert store.repositories.get_manifest(name, V1).raw == raw


def test_a_push_tells_what_its_tags_named_before(pushed, name):
    first = pushed.repositories.put_manifest(name, V1, image(b"1"), OCI_MANIFEST)

    second = pushed.repositories.put_manifest(name, V1, image(b"2"), OCI_MANIFEST, tags=[Tag("v2")])

    assert first.replaced == ()
    assert second.replaced == ((V1, first.digest),)


def test_of_pushes_at_once_to_one_tag_each_is_told_of_one_other(pushed, name):
    """So whoever takes away what a tag has left takes away all of it."""
    first = pushed.repositories.put_manifest(name, V1, image(**{"number": -1}), OCI_MANIFEST)
    told: list[Digest] = []

    def push(number: int) -> None:
        put = pushed.repositories.put_manifest(name, V1, image(**{"number": number}), OCI_MANIFEST)
        told.extend(digest for _, digest in put.replaced)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    last = pushed.repositories.get_manifest(name, V1).digest
    pushes = {first.digest, *(Digest.of(image(**{"number": number})) for number in range(8))}
    assert sorted(map(str, told)) == sorted(map(str, pushes - {last}))


def test_pushes_at_once_to_one_new_repository_all_succeed(store):
    errors: list[BaseException] = []

    def push(number: int) -> None:
        try:
            name = RepositoryName("new/one")
            blob = store.blobs.put(name, b"{}")
            assert blob.size == 2
            raw = image(**{"number": number % 3})
            store.repositories.put_manifest(name, V1, raw, OCI_MANIFEST, tags=[Tag(f"t{number}")])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert len(store.repositories.tags(RepositoryName("new/one"))[0]) == 9
    assert len(list(store.driver.keys(""))) >= 1
