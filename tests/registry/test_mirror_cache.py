"""What mirrors keep here: the least recently pulled goes first, and what was pushed never does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from sqlalchemy import func, select, update

from registry.config import ConfigInvalid, load_config
from registry.janitor import tidy
from registry.mirror.cache import (
    FETCHED_LEASE_S,
    FORGET_S,
    FORGET_TAG_S,
    IDLE_S,
    MirrorCache,
    MirrorReads,
    Watermarks,
)
from registry.mirror.freshness import Freshness
from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.models import MirrorRead, MirrorTag
from registry.remotes.fetch import marker_of
from registry.remotes.http import Origin
from storage.blobs import LEASE_S
from storage.db import Database
from storage.digest import Digest
from storage.errors import BlobUnknown, UploadUnknown
from storage.layout import BLOBS
from storage.manifest import Descriptor
from storage.models import Blob, BlobLink, Manifest, ManifestBlob, Object, Repository
from storage.models import Upload as UploadRow
from storage.reference import RepositoryName, Tag
from storage.store import Store
from storage.upload import Upload
from tests.databases import DATABASE, NO_SERVER
from tests.storage import conftest as storage_fixtures

# a store as its own tests have it
database_url = storage_fixtures.database_url
database = storage_fixtures.database
driver = storage_fixtures.driver

MIRRORED, PUSHED = RepositoryName("far/team/model"), RepositoryName("near/model")
NEIGHBOUR = RepositoryName("far-away/model")  # begins like the prefix, and is not below it
TAG = Tag("v1")
KIB = 1024
INDEX = "application/vnd.oci.image.index.v1+json"


on_both = pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=NO_SERVER)], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """SQLite, but where a test says `on_both`: what depends on neither need not be shown twice."""
    return str(getattr(request, "param", DATABASE))


@pytest.fixture
def store(database, driver) -> Iterator[Store]:
    Mirrors(database).add(Mirror(RepositoryName("far"), Origin.of("https://far.example")))
    return Store(database, driver)


@pytest.fixture
def reads(store: Store) -> MirrorReads:
    return MirrorReads(store.database)


def descriptor(data: bytes) -> dict[str, object]:
    return {"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)}


def image(*blobs: bytes) -> bytes:
    config, *layers = map(descriptor, blobs)
    return json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()


def weights(name: str, size: int = KIB) -> bytes:
    return name.encode().ljust(size, b".")


def fetch(store: Store, *blobs: bytes, name: RepositoryName = MIRRORED, tag: Tag | None = TAG) -> Digest:
    """As a mirror does it: the manifest first, then the blobs; and as if a day had passed. The manifest's digest."""
    raw = image(*blobs)
    digest = Digest.of(raw)
    store.repositories.put_manifest(name, tag or digest, raw, allow_sparse=True)
    for data in blobs:
        store.blobs.put(name, data, principal="mirror")
    lapse(store)
    return digest


def push(store: Store, name: RepositoryName, *blobs: bytes) -> None:
    for data in blobs:
        store.blobs.put(name, data)
    store.repositories.put_manifest(name, TAG, image(*blobs))


def lapse(store: Store) -> None:
    with store.database.write() as session:
        session.execute(update(Object).values(lease_until=time.time() - 1))
        session.execute(update(BlobLink).values(lease_until=time.time() - 1))


def pulled(store: Store, data: bytes, at: float, name: RepositoryName = MIRRORED) -> None:
    MirrorReads(store.database).note(name, Digest.of(data))
    blob = select(Blob.id).where(Blob.digest == str(Digest.of(data))).scalar_subquery()
    with store.database.write() as session:
        session.execute(update(MirrorRead).where(MirrorRead.blob_id == blob).values(read_at=at))


def is_here(store: Store, data: bytes, name: RepositoryName = MIRRORED) -> bool:
    try:
        with store.blobs.open(name, Digest.of(data)) as file:
            return file.read() == data
    except BlobUnknown:
        return False


def listed_ids(store: Store, data: bytes) -> list[int | None]:
    with store.database.read() as session:
        return list(session.scalars(select(ManifestBlob.blob_id).where(ManifestBlob.digest == str(Digest.of(data)))))


def trim(store: Store, high: int, low: int) -> int:
    return MirrorCache(store, Watermarks(high, low)).trim()


def count(store: Store, table: type) -> int:
    with store.database.read() as session:
        return int(session.scalar(select(func.count()).select_from(table)))


@on_both
def test_the_least_recently_pulled_go_until_the_low_mark_is_reached(store):
    blobs = [weights(name) for name in "abcd"]
    fetch(store, *blobs)
    for data, at in zip(blobs, (30.0, 10.0, 40.0, 20.0), strict=True):
        pulled(store, data, at)

    freed = trim(store, high=3 * KIB, low=2 * KIB)

    assert freed == 2 * KIB
    assert [is_here(store, data) for data in blobs] == [True, False, True, False]
    assert len(list(store.driver.keys(BLOBS))) == 2


def test_what_nobody_was_seen_to_pull_goes_first(store):
    seen, unseen = weights("seen"), weights("unseen")
    fetch(store, seen, unseen)
    pulled(store, seen, 1.0)

    trim(store, high=KIB, low=KIB)

    assert (is_here(store, seen), is_here(store, unseen)) == (True, False)


@pytest.mark.parametrize(("high", "low"), [(2 * KIB, 0), (0, 0), (10 * KIB, KIB)])
def test_nothing_goes_below_the_high_mark_or_without_one(store, high, low):
    fetch(store, weights("a"), weights("b"))

    assert trim(store, high, low) == 0
    assert is_here(store, weights("a"))


@on_both
def test_an_evicted_blob_is_one_that_its_manifest_waits_for(store):
    data = weights("a")
    digest = fetch(store, data)
    assert listed_ids(store, data) != [None]

    trim(store, high=1, low=0)

    assert listed_ids(store, data) == [None]
    assert store.repositories.get_manifest(MIRRORED, TAG).digest == digest
    store.blobs.put(MIRRORED, data, principal="mirror")  # fetched again
    assert listed_ids(store, data) != [None]
    assert is_here(store, data)


@on_both
@pytest.mark.parametrize("name", [PUSHED, NEIGHBOUR], ids=str)
def test_a_blob_that_a_pushed_repository_has_too_neither_counts_nor_goes(store, name):
    shared, alone = weights("shared"), weights("alone")
    push(store, name, shared)
    fetch(store, shared, alone)
    lapse(store)

    assert MirrorCache(store, Watermarks()).size() == KIB
    assert trim(store, high=1, low=0) == KIB

    assert is_here(store, shared) and is_here(store, shared, name)
    assert not is_here(store, alone)


@on_both
def test_a_blob_that_a_pushed_manifest_lists_stays_even_if_the_link_is_a_mirrors_alone(store):
    data = weights("a")
    fetch(store, data)
    store.repositories.put_manifest(PUSHED, TAG, image(data), allow_sparse=True)

    assert trim(store, high=1, low=0) == 0
    assert is_here(store, data)


def test_a_blob_under_another_digest_of_a_pushed_manifest_stays(store):
    data = weights("a")
    fetch(store, data)
    store.blobs.put(PUSHED, data, algorithm="sha512")
    lapse(store)

    assert trim(store, high=1, low=0) == 0
    assert is_here(store, data)


def test_a_blob_that_came_by_a_push_and_only_a_mirrored_manifest_still_lists_goes(store):
    data = weights("a")
    store.repositories.put_manifest(MIRRORED, TAG, image(data), allow_sparse=True)
    push(store, PUSHED, data)
    store.repositories.delete_manifest(PUSHED, Digest.of(image(data)))
    lapse(store)
    store.collector.sweep()
    assert len(list(store.driver.keys(BLOBS))) == 1

    assert trim(store, high=1, low=0) == KIB


@on_both
def test_a_blob_whose_lease_runs_stays(store):
    old, new = weights("old"), weights("new")
    fetch(store, old)
    pulled(store, old, 50.0)
    store.repositories.put_manifest(MIRRORED, Tag("v2"), image(new), allow_sparse=True)
    store.blobs.put(MIRRORED, new, principal="mirror")

    assert trim(store, high=1, low=0) == KIB

    assert (is_here(store, old), is_here(store, new)) == (False, True)


@on_both
def test_what_was_fetched_may_go_soon_after_and_not_a_day_later(store, reads):
    data = weights("a")
    store.repositories.put_manifest(MIRRORED, TAG, image(data), allow_sparse=True)
    store.blobs.put(MIRRORED, data, principal="mirror")

    reads.fetched(MIRRORED, Digest.of(data), principal="mirror")

    with store.database.read() as session:
        (of_link,), (of_object,) = (
            session.scalars(select(BlobLink.lease_until)),
            session.scalars(select(Object.lease_until)),
        )
        assert of_link == of_object
        assert time.time() < of_link <= time.time() + FETCHED_LEASE_S
        assert session.scalar(select(func.count()).select_from(MirrorRead)) == 1


def test_a_lease_of_somebody_else_is_not_shortened(store, reads):
    data = weights("a")
    fetch(store, data)
    store.blobs.renew_lease(MIRRORED, Digest.of(data), principal="key:somebody")

    reads.fetched(MIRRORED, Digest.of(data), principal="mirror")

    with store.database.read() as session:
        assert session.scalars(select(Object.lease_until)).one() > time.time() + LEASE_S / 2


def test_who_reads_an_evicted_blob_reads_to_its_end(store):
    data = weights("a", 300 * KIB)
    fetch(store, data)

    with store.blobs.open(MIRRORED, Digest.of(data)) as file:
        start = file.read(KIB)
        assert trim(store, high=1, low=0) == len(data)
        assert start + file.read() == data


def test_a_blob_that_is_mounted_in_the_middle_of_a_turn_stays(store):
    data = weights("a")
    fetch(store, data)
    evictor = MirrorCache(store, Watermarks(1, 0))._evictor
    with store.database.read() as session:
        object_id = session.scalars(select(Object.id).where(evictor.may_go)).one()

    assert store.blobs.mount(Digest.of(data), source=MIRRORED, into=PUSHED)
    lapse(store)

    assert evictor.evict(object_id) == 0
    assert is_here(store, data, PUSHED) and is_here(store, data)


@on_both
def test_mounts_and_evictions_at_once_leave_a_blob_whole_or_gone(store):
    """Whatever the order: a mount that was granted can be read, and what was refused is gone."""
    with ThreadPoolExecutor(1) as pool:
        for each in range(10):
            data, into = weights(str(each)), RepositoryName(f"near/m{each}")
            fetch(store, data)

            mount = pool.submit(store.blobs.mount, Digest.of(data), source=MIRRORED, into=into)
            trim(store, high=1, low=0)

            assert is_here(store, data, into) == is_here(store, data) == mount.result()


@on_both
def test_two_janitors_at_once_take_hardly_more_than_one_would(store):
    blobs = [weights(f"{each:02}") for each in range(20)]
    fetch(store, *blobs)
    for at, data in enumerate(blobs):
        pulled(store, data, float(at + 1))

    with ThreadPoolExecutor(2) as pool:
        turns = [pool.submit(trim, store, high=15 * KIB, low=10 * KIB) for _ in range(2)]
        freed = sum(turn.result() for turn in turns)

    kept = [is_here(store, data) for data in blobs]
    assert freed == kept.count(False) * KIB
    assert 10 * KIB <= freed <= 11 * KIB  # one may have been on its way out while the other janitor counted
    assert kept[-9:] == [True] * 9


@on_both
def test_a_pull_is_written_down_once_an_hour(store):
    clock = [0.0]
    reads = MirrorReads(store.database, clock=lambda: clock[0])
    data = weights("a")
    fetch(store, data)
    pulled(store, data, 1.0)

    def read_at() -> float:
        with store.database.read() as session:
            return session.scalars(select(MirrorRead.read_at)).one()

    reads.note(MIRRORED, Digest.of(data))
    assert read_at() > 1.0
    pulled(store, data, 1.0)
    clock[0] = 3599.0
    reads.note(MIRRORED, Digest.of(data))
    assert read_at() == 1.0
    clock[0] = 3600.0
    reads.note(MIRRORED, Digest.of(data))
    assert read_at() > 1.0


def test_a_pull_of_what_is_not_here_writes_nothing(store, reads):
    reads.note(RepositoryName("far/nobody"), Digest.of(b"nothing"))

    assert count(store, MirrorRead) == 0


def test_a_store_that_refuses_does_not_stop_a_pull(tmp_path, caplog):
    reads = MirrorReads(Database(f"sqlite:///{tmp_path}/no/such/folder.db"))

    reads.fetched(MIRRORED, Digest.of(b"data"), principal="mirror")

    assert "a pull is not remembered" in caplog.text


def age_manifests(store: Store, seconds: float = FORGET_S + 60) -> None:
    with store.database.write() as session:
        session.execute(update(Manifest).values(pushed_at=time.time() - seconds))


def manifests(store: Store) -> set[str]:
    with store.database.read() as session:
        return set(session.scalars(select(Manifest.digest)))


def test_a_manifest_that_a_tag_left_goes_once_its_blobs_are_gone(store):
    old, new = fetch(store, weights("old")), fetch(store, weights("new"))
    pulled(store, weights("new"), 5.0)
    age_manifests(store)
    cache = MirrorCache(store, Watermarks(KIB, KIB))
    assert cache.forget_manifests() == 0  # its blob is here

    cache.trim()
    age_manifests(store, FORGET_S - 60)
    assert cache.forget_manifests() == 0  # it is young
    age_manifests(store)
    assert cache.forget_manifests() == 1

    assert manifests(store) == {str(new)} != {str(old)}


def put_index(store: Store, *children: Digest, tag: Tag | None = None) -> Digest:
    listed = [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(each), "size": 9} for each in children
    ]
    with store.database.read() as session:
        for entry in listed:
            entry["size"] = session.scalars(select(Manifest.size).where(Manifest.digest == entry["digest"])).one()
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    store.repositories.put_manifest(MIRRORED, tag or Digest.of(raw), raw, allow_sparse=True)
    return Digest.of(raw)


@on_both
def test_an_index_goes_with_its_children_and_only_when_no_blob_of_them_is_here(store):
    child = fetch(store, weights("a"), tag=None)
    put_index(store, child)
    age_manifests(store)
    cache = MirrorCache(store, Watermarks(1, 0))
    assert cache.forget_manifests() == 0

    cache.trim()

    assert cache.forget_manifests() == 1
    assert manifests(store) == set()


def test_manifests_that_are_named_or_pushed_stay(store):
    tagged = put_index(store, fetch(store, weights("a"), tag=None), tag=TAG)
    store.repositories.put_manifest(PUSHED, Digest.of(image(weights("b"))), image(weights("b")), allow_sparse=True)
    age_manifests(store)
    trim(store, high=1, low=0)

    assert MirrorCache(store, Watermarks()).forget_manifests() == 0
    assert len(manifests(store)) == 3
    assert str(tagged) in manifests(store)


def test_what_was_noted_of_tags_that_are_gone_is_forgotten(store):
    fetch(store, weights("a"))
    with store.database.write() as session:
        repository_id = session.scalars(select(Repository.id).where(Repository.name == str(MIRRORED))).one()
        for tag in (TAG.text, "gone"):
            session.add(MirrorTag(repository_id=repository_id, name=tag, checked_at=1.0))

    MirrorCache(store, Watermarks()).forget_manifests()

    with store.database.read() as session:
        assert session.scalars(select(MirrorTag.name)).all() == [TAG.text]


def age_tags(store: Store, seconds: float) -> None:
    """As if the upstream had been asked for each tag so long ago, and not since."""
    with store.database.write() as session:
        session.execute(update(MirrorTag).values(checked_at=time.time() - seconds))


@on_both
@pytest.mark.parametrize("is_index", [False, True])
def test_a_tag_that_nobody_asks_for_any_more_goes_once_its_blobs_are_gone(store, is_index):
    child = fetch(store, weights("a"), tag=None if is_index else TAG)
    if is_index:
        put_index(store, child, tag=TAG)
    Freshness(store.database).confirm(MIRRORED, TAG)
    cache = MirrorCache(store, Watermarks(1, 0))
    age_tags(store, FORGET_TAG_S + 60)
    assert cache.forget_manifests() == 0  # its blob is here

    cache.trim()
    age_tags(store, FORGET_TAG_S - 60)
    assert cache.forget_manifests() == 0  # somebody asked for it within the month
    age_tags(store, FORGET_TAG_S + 60)
    assert cache.forget_manifests() == 1

    assert manifests(store) == set()
    assert count(store, MirrorTag) == 0


def test_a_tag_of_which_nothing_was_noted_is_as_old_as_its_manifest(store):
    for name in (MIRRORED, PUSHED, NEIGHBOUR):
        store.repositories.put_manifest(name, TAG, image(weights(str(name))), allow_sparse=True)
    cache = MirrorCache(store, Watermarks())
    assert cache.forget_manifests() == 0
    age_manifests(store, FORGET_TAG_S + 60)

    assert cache.forget_manifests() == 1

    assert manifests(store) == {str(Digest.of(image(weights(str(name))))) for name in (PUSHED, NEIGHBOUR)}


def stage(store: Store, data: bytes, of: Descriptor, name: RepositoryName = MIRRORED) -> Upload:
    """What a fetch that was left has brought of a blob."""
    upload = store.uploads.start(name, principal="mirror", opened_with=marker_of(of.digest))
    upload.append(BytesIO(data))
    return upload


def blob_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


@pytest.mark.parametrize(("size", "has_room"), [(2 * KIB, True), (2 * KIB + 1, False)])
@on_both
def test_a_blob_has_room_beside_what_is_here_and_on_its_way(store, size, has_room):
    here, coming, new = weights("here"), weights("coming"), weights("new", size)
    fetch(store, here)
    store.blobs.renew_lease(MIRRORED, Digest.of(here), principal="somebody")  # it stays
    stage(store, coming, blob_of(coming))
    stage(store, coming, blob_of(coming), PUSHED)  # nothing of the mirrors'

    assert MirrorCache(store, Watermarks(4 * KIB, KIB)).make_room(MIRRORED, blob_of(new)) == has_room


def test_what_a_blob_has_brought_itself_takes_no_room_from_it(store):
    data = weights("a", 4 * KIB)
    stage(store, data[: 3 * KIB], blob_of(data))

    assert MirrorCache(store, Watermarks(4 * KIB, 0)).make_room(MIRRORED, blob_of(data))


def test_for_a_new_blob_no_more_go_than_must(store):
    blobs = [weights(name) for name in "abc"]
    fetch(store, *blobs)
    for data, at in zip(blobs, (30.0, 10.0, 20.0), strict=True):
        pulled(store, data, at)

    assert MirrorCache(store, Watermarks(3 * KIB, 0)).make_room(MIRRORED, blob_of(weights("new")))

    assert [is_here(store, data) for data in blobs] == [True, False, True]


def test_a_blob_that_never_has_room_puts_out_nothing(store):
    fetch(store, weights("a"))

    assert not MirrorCache(store, Watermarks(2 * KIB, 0)).make_room(MIRRORED, blob_of(weights("new", 3 * KIB)))

    assert is_here(store, weights("a"))


def test_room_that_was_given_is_not_given_again(store):
    cache = MirrorCache(store, Watermarks(3 * KIB, 0))
    assert [cache.make_room(MIRRORED, blob_of(weights(name))) for name in "abc"] == [True] * 3
    fetch(store, *(weights(name) for name in "abc"))
    for name in "abc":
        store.blobs.renew_lease(MIRRORED, Digest.of(weights(name)), principal="somebody")

    assert not cache.make_room(MIRRORED, blob_of(weights("d")))


def test_without_a_mark_there_is_room_for_all(store):
    assert MirrorCache(store, Watermarks()).make_room(MIRRORED, blob_of(weights("a")))


def test_what_a_mirrors_fetch_left_is_kept_an_hour_and_what_others_left_for_longer(store):
    data = weights("a")
    left, young = (stage(store, data[:10], blob_of(data)) for _ in range(2))
    pull = stage(store, data[:10], blob_of(data), PUSHED)
    with store.database.write() as session:
        old = update(UploadRow).where(UploadRow.id != young.id).values(touched_at=time.time() - IDLE_S - 60)
        session.execute(old)

    tidy(store)

    assert store.uploads.resume(MIRRORED, young.id).offset == 10
    assert store.uploads.resume(PUSHED, pull.id).offset == 10
    with pytest.raises(UploadUnknown):
        store.uploads.resume(MIRRORED, left.id)


def test_a_turn_of_the_janitor_keeps_the_marks(store):
    fetch(store, weights("a"), weights("b"))

    tidy(store, Watermarks(KIB, KIB))

    assert len(list(store.driver.keys(BLOBS))) == 1


def test_a_mirror_that_is_removed_leaves_what_it_fetched(store):
    fetch(store, weights("a"))
    Mirrors(store.database).remove(RepositoryName("far"))

    assert trim(store, high=1, low=0) == 0
    assert is_here(store, weights("a"))


@pytest.mark.parametrize(
    ("given", "marks"),
    [
        ({}, (0, 0)),
        ({"mirror_high": "10G"}, (10 * 2**30, 9 * 2**30)),
        ({"mirror_high": "10G", "mirror_low": "1G"}, (10 * 2**30, 2**30)),
        ({"mirror_high": "1K", "mirror_low": "1K"}, (1024, 1024)),
    ],
)
def test_the_marks_as_an_operator_writes_them(given, marks):
    config = load_config(given, {})

    assert (config.mirror_high_bytes, config.mirror_low_bytes) == marks


@pytest.mark.parametrize("environ", [{"HIGH": "1G", "LOW": "2G"}, {"LOW": "1G"}, {"HIGH": "much"}, {"LOW": "-1"}])
def test_marks_that_make_no_sense_are_refused_by_name(environ):
    with pytest.raises(ConfigInvalid, match="TONNAGE_MIRROR_"):
        load_config({}, {f"TONNAGE_MIRROR_{name}": value for name, value in environ.items()})


@pytest.mark.parametrize("backend", [pytest.param("postgresql", marks=NO_SERVER)], indirect=True)
def test_an_object_in_somebodys_hands_is_left_to_the_next_turn(store):
    data = weights("a")
    fetch(store, data)
    evictor = MirrorCache(store, Watermarks(1, 0))._evictor
    with store.database.write() as session:
        object_id = session.scalars(select(Object.id).with_for_update()).one()
        assert evictor.evict(object_id) == 0

    assert evictor.evict(object_id) == KIB
