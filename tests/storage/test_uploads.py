"""The upload machine: append, interruption, retry, commit, cancel, expiry."""

from __future__ import annotations

import errno
import io
import os
import time

import pytest
from sqlalchemy import select, update

from storage import intake
from storage.chunks import ChunkRange
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import (
    ChunkOutOfOrder,
    DigestInvalid,
    SizeInvalid,
    StorageFull,
    StorageUnavailable,
    UploadUnknown,
)
from storage.models import Object
from storage.models import Upload as Row
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload

DATA = os.urandom(2 * 2**20 + 17)
ELSEWHERE = RepositoryName("team/other")


@pytest.fixture
def upload(store: Store, name: RepositoryName) -> Upload:
    return store.uploads.start(name)


def resumed(store: Store, upload: Upload) -> Upload:
    return store.uploads.resume(upload.name, upload.id)


def content(store: Store, name: RepositoryName, digest: Digest) -> bytes:
    with store.blobs.open(name, digest) as blob:
        return blob.read()


class Cut(io.RawIOBase):
    """A body whose sender goes away after `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        block = self._data.read(size)
        if not block:
            raise ConnectionResetError("gone")
        return block


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("hint", [None, "sha256", "sha512"])
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one", "large"])
def test_one_body_becomes_a_blob(store, name, data, algorithm, hint):
    upload = store.uploads.start(name, algorithm=hint)
    digest = Digest.of(data, algorithm)

    assert upload.append(io.BytesIO(data), length=len(data)) == len(data)
    blob = upload.commit(digest)

    assert blob.size == len(data)
    assert content(store, name, digest) == data


def test_chunks_may_come_through_any_process(store, database, driver, upload, name):
    for first in range(0, len(DATA), 700_000):
        piece = DATA[first : first + 700_000]
        other = Store(database, FilesystemDriver(driver._objects.parent))
        chunk = ChunkRange(first, first + len(piece) - 1)
        assert resumed(other, upload).append(io.BytesIO(piece), chunk=chunk, length=len(piece)) == first + len(piece)

    resumed(store, upload).commit(Digest.of(DATA))

    assert content(store, name, Digest.of(DATA)) == DATA


@pytest.mark.parametrize("first", [0, 2, 4, 100])
def test_a_chunk_out_of_order_is_refused_and_changes_nothing(store, upload, first):
    upload.append(io.BytesIO(b"abc"), chunk=ChunkRange(0, 2), length=3)

    with pytest.raises(ChunkOutOfOrder) as refusal:
        upload.append(io.BytesIO(b"xyz"), chunk=ChunkRange(first, first + 2), length=3)

    assert refusal.value.detail == {"offset": 3}
    assert resumed(store, upload).offset == 3
    upload.append(io.BytesIO(b"def"), chunk=ChunkRange(3, 5), length=3)
    assert upload.commit(Digest.of(b"abcdef")).size == 6


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (3, 2), (0, 2**63)])
def test_a_range_must_be_one(first, last):
    with pytest.raises(ChunkOutOfOrder):
        ChunkRange(first, last)


@pytest.mark.parametrize(("body", "length"), [(b"abcd", None), (b"ab", None), (b"abcd", 4), (b"ab", 2)])
def test_a_chunk_that_is_not_as_long_as_its_range_is_rolled_back(store, upload, body, length):
    upload.append(io.BytesIO(b"12"))

    with pytest.raises(SizeInvalid):
        upload.append(io.BytesIO(body), chunk=ChunkRange(2, 4), length=length)

    assert resumed(store, upload).offset == upload.offset == 2
    upload.append(io.BytesIO(b"345"), chunk=ChunkRange(2, 4), length=3)
    upload.commit(Digest.of(b"12345"))


def test_a_client_that_goes_away_keeps_what_arrived(store, upload):
    with pytest.raises(ConnectionResetError):
        upload.append(Cut(DATA), length=len(DATA) + 5)

    assert resumed(store, upload).offset == upload.offset == len(DATA)
    upload.append(io.BytesIO(b"final"))
    upload.commit(Digest.of(DATA + b"final"))


def test_a_body_shorter_than_its_length_keeps_what_arrived(store, upload):
    with pytest.raises(SizeInvalid):
        upload.append(io.BytesIO(b"abc"), length=5)

    assert resumed(store, upload).offset == 3


@pytest.mark.parametrize("resume_at", [2, 5])
def test_an_interrupted_chunk_goes_on_or_begins_again(store, upload, resume_at):
    whole = b"12" + b"345678"
    upload.append(io.BytesIO(b"12"))
    with pytest.raises(ConnectionResetError):
        upload.append(Cut(b"345"), chunk=ChunkRange(2, 7), length=6)

    rest = whole[resume_at:]
    resumed(store, upload).append(io.BytesIO(rest), chunk=ChunkRange(resume_at, 7), length=len(rest))

    assert resumed(store, upload).commit(Digest.of(whole)).size == 8


def test_a_chunk_may_begin_again_with_other_bytes_and_as_often_as_it_likes(store, upload):
    for attempt in (b"aaa", b"bb", b"cccc"):
        with pytest.raises(ConnectionResetError):
            upload.append(Cut(attempt), chunk=ChunkRange(0, 7), length=8)
    upload.append(io.BytesIO(b"12345678"), chunk=ChunkRange(0, 7), length=8)

    upload.commit(Digest.of(b"12345678"))


def test_a_finished_chunk_comes_again_only_if_the_caller_allows_it(store, upload):
    upload.append(io.BytesIO(b"12"))
    chunk = ChunkRange(2, 4)
    upload.append(io.BytesIO(b"345"), chunk=chunk, length=3)

    with pytest.raises(ChunkOutOfOrder):
        upload.append(io.BytesIO(b"345"), chunk=chunk, length=3)
    assert upload.append(io.BytesIO(b"345"), chunk=chunk, length=3, may_repeat=True) == 5

    upload.commit(Digest.of(b"12345"))


def test_a_wrong_digest_keeps_the_session(store, upload, name):
    upload.append(io.BytesIO(b"abc"))

    with pytest.raises(DigestInvalid):
        upload.commit(Digest.of(b"other"))

    assert resumed(store, upload).commit(Digest.of(b"abc")).size == 3


def test_an_unknown_algorithm_is_refused_at_the_start(store, name):
    with pytest.raises(DigestInvalid):
        store.uploads.start(name, algorithm="md5")


def test_a_large_session_hashes_sha512_only_when_it_must(store, upload, name, monkeypatch):
    monkeypatch.setattr(intake, "BOTH_BYTES", 1000)
    upload.append(io.BytesIO(DATA))
    with store.database.read() as session:
        assert list(session.scalars(select(Row.states)).one()) == ["sha256"]

    upload.commit(Digest.of(DATA, "sha512"))

    assert content(store, name, Digest.of(DATA, "sha512")) == DATA


def test_a_finished_session_is_remembered_by_its_digest(store, upload):
    upload.append(io.BytesIO(b"abc"))
    assert store.uploads.finished(upload.name, upload.id) is None

    upload.commit(Digest.of(b"abc"))

    assert store.uploads.finished(upload.name, upload.id) == Digest.of(b"abc")
    assert store.uploads.finished(ELSEWHERE, upload.id) is None
    for call in (lambda: resumed(store, upload), lambda: upload.append(io.BytesIO(b"x")), upload.cancel):
        with pytest.raises(UploadUnknown):
            call()


def test_two_sessions_of_one_digest_both_succeed_and_keep_one_copy(store, name):
    uploads = [store.uploads.start(name), store.uploads.start(ELSEWHERE)]
    for each in uploads:
        each.append(io.BytesIO(DATA))

    first, second = (each.commit(Digest.of(DATA)) for each in uploads)

    assert first == second
    assert len(list(store.driver.keys(""))) == 1
    assert content(store, ELSEWHERE, Digest.of(DATA)) == DATA


def test_two_names_of_the_same_bytes_share_them(store, name):
    for algorithm in ("sha512", "sha256"):
        upload = store.uploads.start(name)
        upload.append(io.BytesIO(DATA))
        upload.commit(Digest.of(DATA, algorithm))

    assert len(list(store.driver.keys(""))) == 1


def test_bytes_that_are_being_deleted_are_stored_anew(store, name):
    old = store.blobs.put(name, b"abc")
    with store.database.write() as session:
        session.execute(update(Object).values(state="deleting"))
    upload = store.uploads.start(name)
    upload.append(io.BytesIO(b"abc"))

    new = upload.commit(Digest.of(b"abc"))

    assert new.key != old.key
    store.driver.delete(old.key)
    assert content(store, name, new.digest) == b"abc"


@pytest.mark.parametrize("upload_id", ["", "x", "../x", "a" * 65, "a\0", "é", "' OR 1=1 --"])
def test_an_unknown_session_is_unknown(store, name, upload_id):
    with pytest.raises(UploadUnknown):
        store.uploads.resume(name, upload_id)
    assert store.uploads.finished(name, upload_id) is None


def test_a_session_of_another_repository_or_principal_is_unknown(store, name):
    upload = store.uploads.start(name, principal="alice")

    with pytest.raises(UploadUnknown):
        store.uploads.resume(ELSEWHERE, upload.id)
    with pytest.raises(UploadUnknown):
        store.uploads.resume(name, upload.id, principal="bob")
    assert store.uploads.resume(name, upload.id, principal="alice").id == upload.id


def test_a_cancelled_session_is_gone_with_its_bytes(store, upload, tmp_path):
    upload.append(io.BytesIO(b"abc"))

    upload.cancel()

    assert list((tmp_path / "data" / "uploads").iterdir()) == []
    with pytest.raises(UploadUnknown):
        upload.cancel()


def test_a_full_disk_keeps_what_was_stored_before(store, upload, driver, monkeypatch):
    upload.append(io.BytesIO(b"abc"))
    with monkeypatch.context() as patched:
        patched.setattr("storage.drivers.filesystem._Writer.write", _refuse)
        with pytest.raises(StorageFull):
            upload.append(io.BytesIO(b"def"))

    assert resumed(store, upload).offset == 3
    upload.append(io.BytesIO(b"def"))
    upload.commit(Digest.of(b"abcdef"))


def test_bytes_whose_sync_failed_once_are_not_believed_later(store, upload, monkeypatch):
    upload.append(io.BytesIO(b"abc"))
    real, failures = os.fsync, iter([OSError(errno.EIO, "lost")])

    def fail_once(descriptor: int) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        real(descriptor)

    monkeypatch.setattr(intake, "SAVE_BYTES", 1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_once)
        with pytest.raises(StorageUnavailable):
            upload.append(io.BytesIO(b"def"))

    assert resumed(store, upload).offset == upload.offset == 3
    upload.append(io.BytesIO(b"DEF"))
    upload.commit(Digest.of(b"abcDEF"))


def _refuse(_self: object, _data: bytes) -> None:
    raise StorageFull("no space left for the bytes")


def test_progress_is_saved_while_a_long_body_streams(store, upload, monkeypatch):
    monkeypatch.setattr(intake, "SAVE_BYTES", 2**20)

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            saved = self.tell() // 2**20 * 2**20
            deadline = time.monotonic() + 10
            while resumed(store, upload).offset != saved and time.monotonic() < deadline:
                time.sleep(0.01)
            assert resumed(store, upload).offset == saved or self.tell() == len(DATA)
            return super().read(size)

    upload.append(Watched(DATA))


def test_what_a_checkpoint_tells_of_is_what_was_written_when_it_began(store, upload, monkeypatch):
    monkeypatch.setattr(intake, "SAVE_BYTES", 2**20)
    synced: list[int | None] = []
    monkeypatch.setattr("storage.drivers.filesystem._Writer.sync", lambda _writer, mark=None: synced.append(mark))

    upload.append(io.BytesIO(bytes(5 * 2**20)))

    assert synced == [*range(2**20, 6 * 2**20, 2**20), None]


@pytest.mark.parametrize("step", ["publish", "admit"])
def test_a_commit_that_dies_can_be_repeated_or_gone_on_with(store, upload, name, monkeypatch, step):
    upload.append(io.BytesIO(b"abc"))
    target = "storage.upload.admit" if step == "admit" else "storage.drivers.filesystem.FilesystemDriver.publish"
    with monkeypatch.context() as patched:
        patched.setattr(target, _die)
        with pytest.raises(MemoryError):
            upload.commit(Digest.of(b"abc"))

    again = resumed(store, upload)
    again.append(io.BytesIO(b"d"))
    again.commit(Digest.of(b"abcd"))

    assert content(store, name, Digest.of(b"abcd")) == b"abcd"


def _die(*_arguments: object, **_more: object) -> str:
    raise MemoryError


def test_an_expired_session_frees_its_bytes_and_a_busy_or_young_one_stays(store, name, tmp_path):
    idle, busy, young, done = (store.uploads.start(name) for _ in range(4))
    done.append(io.BytesIO(b"abc"))
    done.commit(Digest.of(b"abc"))
    for upload in (idle, busy, young):
        upload.append(io.BytesIO(b"xyz"))
    now = time.time()
    with store.database.write() as session:
        session.execute(update(Row).where(Row.id != young.id).values(touched_at=now - 90_000))
        session.execute(update(Row).where(Row.id == busy.id).values(writer="x", writer_until=now + 30))

    assert store.uploads.expire() == 2

    assert len(list((tmp_path / "data" / "uploads").iterdir())) == 2
    assert content(store, name, Digest.of(b"abc")) == b"abc"
    assert store.uploads.finished(name, done.id) is None
    with pytest.raises(UploadUnknown):
        resumed(store, idle)
    assert resumed(store, busy).offset == resumed(store, young).offset == 3
