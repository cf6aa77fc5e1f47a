"""Space comes back when nobody needs the bytes, and never before."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from io import BytesIO

import pytest
from sqlalchemy import delete, func, select, text, update

from storage.blobs import LEASE_S
from storage.digest import Digest
from storage.errors import BlobUnknown, ManifestBlobUnknown, StorageUnavailable
from storage.gc import Collector, Swept
from storage.layout import BLOBS, new_blob_key, uploads_folder
from storage.manifest import OCI_INDEX, OCI_MANIFEST, Manifest
from storage.manifests import Received, store_manifest
from storage.models import DELETING, BlobLink, Object
from storage.namespaces import require_repository
from storage.reference import RepositoryName, Tag
from storage.store import Store

OTHER = RepositoryName("team/other")
CONFIG, WEIGHTS = b"{}", b"weights " * 1000
ME, YOU = "key:me", "key:you"


@pytest.fixture
def gc(store: Store) -> Collector:
    return Collector(store.database, store.driver)


def image(*layers: bytes) -> bytes:
    described = [
        {"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)}
        for data in (CONFIG, *layers)
    ]
    return json.dumps({"schemaVersion": 2, "config": described[0], "layers": described[1:]}).encode()


def push(store: Store, name: RepositoryName, tag: str = "v1", *, principal: str | None = None) -> Digest:
    for data in (CONFIG, WEIGHTS):
        upload = store.uploads.start(name, principal=principal)
        upload.append(BytesIO(data))
        upload.commit(Digest.of(data))
    raw = image(WEIGHTS)
    return store.repositories.put_manifest(name, Tag(tag), raw, OCI_MANIFEST, principal=principal).digest


def keys(store: Store) -> list[str]:
    return list(store.driver.keys(BLOBS))


def lapse(store: Store) -> None:
    """As if a day had passed."""
    with store.database.write() as session:
        session.execute(update(Object).values(lease_until=time.time() - 1))
        session.execute(update(BlobLink).values(lease_until=time.time() - 1))


def test_a_deleted_model_on_an_idle_server_is_gone_after_one_sweep(store, name, gc):
    digest = push(store, name, principal=ME)
    assert gc.sweep() == Swept()

    store.repositories.delete_manifest(name, digest)

    assert gc.candidates() == Swept(links=2, objects=2, size=len(CONFIG + WEIGHTS))
    assert gc.sweep() == Swept(links=2, objects=2, size=len(CONFIG + WEIGHTS))
    assert keys(store) == []
    with store.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Object)) == 0


def test_a_dry_run_changes_nothing(store, name, gc):
    store.repositories.delete_manifest(name, push(store, name))

    gc.candidates()

    assert len(keys(store)) == 2
    assert store.blobs.stat(name, Digest.of(WEIGHTS))


def test_an_untagged_manifest_keeps_its_blobs(store, name, gc):
    digest = push(store, name)
    store.repositories.delete_manifest(name, Tag("v1"))

    assert gc.sweep() == Swept()

    assert store.repositories.get_manifest(name, digest).raw == image(WEIGHTS)


def test_a_blob_that_an_index_lists_stays(store, name, gc):
    blob = store.blobs.put(name, WEIGHTS)
    child = {"mediaType": "application/octet-stream", "digest": str(blob.digest), "size": blob.size}
    raw = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
    store.repositories.put_manifest(name, Tag("cache"), raw, OCI_INDEX)
    lapse(store)

    assert gc.sweep() == Swept()

    assert store.blobs.open(name, blob.digest).read() == WEIGHTS


def test_another_repository_keeps_what_one_lets_go(store, name, gc):
    digest = push(store, name)
    push(store, OTHER)
    store.repositories.delete_manifest(name, digest)

    assert gc.sweep() == Swept(links=2)

    assert store.blobs.open(OTHER, Digest.of(WEIGHTS)).read() == WEIGHTS
    with pytest.raises(BlobUnknown):
        store.blobs.stat(name, Digest.of(WEIGHTS))


def test_a_second_digest_of_the_same_bytes_keeps_them(store, name, gc):
    long = store.blobs.put(OTHER, WEIGHTS, algorithm="sha512")
    store.repositories.delete_manifest(name, push(store, name))

    gc.sweep()

    assert store.blobs.open(OTHER, long.digest).read() == WEIGHTS


@pytest.mark.parametrize("promise", ["upload", "stat", "mount", "somebody else's push"])
def test_what_a_client_was_told_is_here_stays_until_its_lease_ends(store, name, gc, promise):
    repository = OTHER if promise == "mount" else name
    blob = store.blobs.put(name, WEIGHTS)
    if promise != "upload":
        store.repositories.delete_manifest(name, push(store, name))
    if promise == "stat":
        store.blobs.renew_lease(name, blob.digest, principal=ME)
    elif promise == "mount":
        assert store.blobs.mount(blob.digest, source=name, into=OTHER)
    elif promise == "somebody else's push":
        store.blobs.renew_lease(name, blob.digest, principal=YOU)
        store.repositories.delete_manifest(name, push(store, name, principal=ME))

    gc.sweep()
    assert store.blobs.open(repository, blob.digest).read() == WEIGHTS
    lapse(store)
    gc.sweep()

    assert keys(store) == []


def test_a_blob_that_was_told_of_after_the_manifest_is_leased_again(store, name, gc):
    digest = push(store, name, principal=ME)
    store.blobs.renew_lease(name, Digest.of(WEIGHTS), principal=ME)
    store.repositories.delete_manifest(name, digest)

    gc.sweep()

    with store.database.read() as session:
        assert session.scalar(select(func.max(Object.lease_until))) > time.time() + LEASE_S / 2
    assert store.blobs.open(name, Digest.of(WEIGHTS)).read() == WEIGHTS


def test_an_unlinked_blob_is_gone_after_one_sweep(store, name, gc):
    blob = store.blobs.put(name, WEIGHTS)
    store.blobs.unlink(name, blob.digest)

    assert gc.sweep() == Swept(objects=1, size=blob.size)


@pytest.mark.parametrize("last_step", ["mark", "bytes"])
def test_a_sweep_that_died_is_finished_by_the_next_one(store, name, gc, last_step):
    blob = store.blobs.put(name, WEIGHTS)
    store.blobs.unlink(name, blob.digest)
    with store.database.read() as session:
        (object_id,) = session.scalars(select(Object.id))
    assert gc.mark(object_id)
    if last_step == "bytes":
        store.driver.delete(blob.key)

    assert gc.sweep() == Swept(objects=1, size=blob.size)
    assert (keys(store), gc.sweep()) == ([], Swept())


def test_a_push_during_the_removal_gets_bytes_of_its_own(store, name, gc):
    old = store.blobs.put(name, WEIGHTS)
    store.blobs.unlink(name, old.digest)
    with store.database.read() as session:
        (object_id,) = session.scalars(select(Object.id))
    gc.mark(object_id)
    with pytest.raises(ManifestBlobUnknown):
        store.repositories.put_manifest(name, Tag("v1"), image(WEIGHTS), OCI_MANIFEST)

    push(store, name)
    gc.remove(object_id)
    lapse(store)
    gc.sweep()

    assert store.blobs.stat(name, old.digest).key != old.key
    assert store.blobs.open(name, old.digest).read() == WEIGHTS


def test_a_late_removal_spares_the_object_that_got_the_same_id(store, name, gc):
    old = store.blobs.put(name, b"old")
    store.blobs.unlink(name, old.digest)
    with store.database.read() as session:
        (object_id,) = session.scalars(select(Object.id))
    gc.mark(object_id)
    delete = store.driver.delete

    def overtaken(key: str) -> None:
        delete(key)
        if key == old.key:
            store.driver.delete = delete
            Collector(store.database, store.driver).remove(object_id)
            store.blobs.put(name, WEIGHTS)

    store.driver.delete = overtaken
    assert gc.remove(object_id) == Swept()

    assert store.blobs.open(name, Digest.of(WEIGHTS)).read() == WEIGHTS


def test_a_sweep_stops_at_its_limit_and_when_told_to(store, name, gc):
    for number in range(5):
        store.blobs.unlink(name, store.blobs.put(name, str(number).encode()).digest)

    assert gc.sweep(limit=2).objects == 2
    assert gc.sweep(go_on=lambda: False) == Swept()
    assert gc.sweep().objects == 3


def test_bytes_that_cannot_be_deleted_do_not_hold_up_the_others(store, name, gc, monkeypatch):
    stuck, other = (store.blobs.put(name, data) for data in (b"stuck", b"other"))
    for blob in (stuck, other):
        store.blobs.unlink(name, blob.digest)
    delete = store.driver.delete

    def refuse(key: str) -> None:
        if key == stuck.key:
            raise StorageUnavailable("the filesystem refuses")
        delete(key)

    monkeypatch.setattr(store.driver, "delete", refuse)
    assert gc.sweep() == Swept(objects=1, size=5)
    assert gc.sweep() == Swept()
    monkeypatch.undo()

    assert gc.sweep() == Swept(objects=1, size=5)
    assert keys(store) == []


def test_pages_leave_nothing_out(store, name, gc, monkeypatch):
    monkeypatch.setattr("storage.gc._PAGE", 2)
    for number in range(5):
        store.blobs.put(name, str(number).encode())
    lapse(store)

    assert gc.candidates() == Swept(links=5, objects=5, size=5)
    assert gc.sweep() == Swept(links=5, objects=5, size=5)


def test_two_nodes_sweep_at_once(store, database_url, name, gc):
    for number in range(20):
        store.blobs.unlink(name, store.blobs.put(name, str(number).encode()).digest)
    swept: list[Swept] = []

    at_once(*[lambda: swept.append(Collector(store.database, store.driver).sweep()) for _ in range(3)])
    swept.append(gc.sweep())

    assert (sum(one.objects for one in swept), keys(store)) == (20, [])


def test_pushes_and_sweeps_at_once_lose_nothing(store, name, gc):
    """Each push is deleted by the next one's author only after it was seen whole."""
    failures: list[str] = []
    is_over = threading.Event()

    def pusher(repository: RepositoryName) -> None:
        for _ in range(4):
            digest = push(store, repository)
            for data in (CONFIG, WEIGHTS):
                try:
                    if store.blobs.open(repository, Digest.of(data)).read() != data:
                        failures.append("other bytes")
                except BlobUnknown:
                    failures.append("blob lost")
            store.repositories.delete_manifest(repository, digest)

    def sweeper() -> None:
        while not is_over.wait(0.02):
            gc.sweep()

    sweeping = [threading.Thread(target=sweeper) for _ in range(2)]
    for thread in sweeping:
        thread.start()
    at_once(*[lambda n=n: pusher(RepositoryName(f"team/m{n}")) for n in range(3)])
    is_over.set()
    for thread in sweeping:
        thread.join(30)
    gc.sweep()

    assert (failures, keys(store)) == ([], [])


def test_a_sweep_passes_by_a_push_under_way(store, name, gc, backend):
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    blobs = [store.blobs.put(name, data) for data in (CONFIG, WEIGHTS)]
    lapse(store)
    raw = image(WEIGHTS)
    received = Received(raw, Digest.of(raw), Manifest.parse(raw, OCI_MANIFEST))

    with store.database.write() as session:
        store_manifest(session, require_repository(session, name), received, [], allow_sparse=False)
        assert gc.sweep() == Swept()

    assert gc.sweep() == Swept()
    assert [store.blobs.open(name, blob.digest).read() for blob in blobs] == [CONFIG, WEIGHTS]


def test_a_push_that_waited_for_a_sweep_sees_what_it_took(store, name, backend):
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    blob = store.blobs.put(name, CONFIG)
    told: list[Exception] = []

    def put() -> None:
        try:
            store.repositories.put_manifest(name, Tag("v1"), image(), OCI_MANIFEST)
        except ManifestBlobUnknown as error:
            told.append(error)

    with store.database.write() as session:  # the steps of `drop_link`, with a push between them and the commit
        session.execute(select(Object.id).where(Object.storage_key == blob.key).with_for_update())
        session.execute(delete(BlobLink))
        pushing = threading.Thread(target=put)
        pushing.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        deadline = time.monotonic() + 20
        while not session.scalar(waiting):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    pushing.join(20)

    assert len(told) == 1


def test_old_bytes_without_a_row_are_adopted_and_swept_and_young_ones_stay(store, name, gc):
    kept = store.blobs.put(name, WEIGHTS)
    orphan = new_blob_key()
    store.driver.write(orphan, BytesIO(b"orphan"))
    assert gc.adopt_orphans() == 0

    assert gc.adopt_orphans(older_than_s=-1) == 1

    assert gc.sweep() == Swept(objects=1, size=6)
    assert keys(store) == [kept.key]


def test_old_staged_bytes_without_a_session_are_forgotten_and_others_stay(store, name, gc, tmp_path):
    upload = store.uploads.start(name)
    upload.append(BytesIO(WEIGHTS))
    with store.driver.append(store.driver.stage(new_blob_key()), at=0) as writer:
        writer.write(b"of a session that was never saved")
    (uploads_folder(tmp_path / "data") / "0123~").write_bytes(b"of a write that died")
    assert gc.forget_staged() == 0

    assert gc.forget_staged(older_than_s=-1) == 2

    assert len(list(uploads_folder(tmp_path / "data").iterdir())) == 1
    assert upload.commit(Digest.of(WEIGHTS)).size == len(WEIGHTS)


def test_a_session_whose_commit_died_is_no_orphan(store, name, gc):
    upload = store.uploads.start(name)
    upload.append(BytesIO(WEIGHTS))
    with store.database.read() as session:
        handle = session.connection().exec_driver_sql("SELECT handle FROM uploads").scalar_one()
    store.driver.publish(handle, size=len(WEIGHTS))

    assert gc.adopt_orphans(older_than_s=-1) == 0

    assert upload.commit(Digest.of(WEIGHTS)).size == len(WEIGHTS)


def test_nothing_can_take_up_a_marked_object_again(store, name, gc):
    blob = store.blobs.put(name, WEIGHTS)
    store.blobs.mount(blob.digest, source=name, into=OTHER)
    with store.database.write() as session:
        session.execute(update(Object).values(state=DELETING))

    assert not store.blobs.mount(blob.digest, source=name, into=OTHER)
    with pytest.raises(BlobUnknown):
        store.blobs.renew_lease(name, blob.digest)


def at_once(*steps: Callable[[], object]) -> None:
    threads = [threading.Thread(target=step) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
