"""One writer at a time holds an upload session."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update

from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver, _Writer
from storage.errors import StorageError, UploadBusy, UploadUnknown
from storage.layout import uploads_folder
from storage.models import Object
from storage.models import Upload as Row
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload


@pytest.fixture
def upload(store: Store, name: RepositoryName) -> Upload:
    return store.uploads.start(name)


def resumed(store: Store, upload: Upload) -> Upload:
    return store.uploads.resume(upload.name, upload.id)


class Gate(io.RawIOBase):
    """A body that sends one piece and then waits for the test."""

    def __init__(self, piece: bytes) -> None:
        self.was_read, self.may_end = threading.Event(), threading.Event()
        self._pieces: Iterator[bytes] = iter([piece])

    def read(self, size: int = -1) -> bytes:
        if (piece := next(self._pieces, None)) is not None:
            return piece
        self.was_read.set()
        assert self.may_end.wait(30)
        return b""


def test_a_second_writer_is_refused_while_one_writes(store, upload, monkeypatch):
    monkeypatch.setattr("storage.claims.WAIT_S", 0.2)
    slow = Gate(b"slow")
    writer = threading.Thread(target=upload.append, args=(slow,))
    writer.start()
    assert slow.was_read.wait(10)

    for call in (
        lambda: resumed(store, upload).append(io.BytesIO(b"x")),
        lambda: resumed(store, upload).commit(Digest.of(b"")),
        lambda: resumed(store, upload).cancel(),
    ):
        with pytest.raises(UploadBusy):
            call()
    slow.may_end.set()
    writer.join(10)

    assert resumed(store, upload).commit(Digest.of(b"slow")).size == 4


def test_a_second_writer_that_waits_comes_next(store, upload):
    slow = Gate(b"first")
    writer = threading.Thread(target=upload.append, args=(slow,))
    writer.start()
    assert slow.was_read.wait(10)
    threading.Timer(0.3, slow.may_end.set).start()

    assert resumed(store, upload).append(io.BytesIO(b"second")) == 11
    writer.join(10)

    resumed(store, upload).commit(Digest.of(b"firstsecond"))


def test_a_writer_whose_claim_lapsed_stops_before_it_writes(store, upload, monkeypatch):
    class Late(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            with store.database.write() as session:  # a silence of more than the claim's length
                session.execute(update(Row).values(writer_until=time.time() - 1))
            resumed(store, upload).append(io.BytesIO(b"taken over"))
            return b"late"

    monkeypatch.setattr("storage.claims.RENEW_S", -1.0)
    with pytest.raises(UploadBusy):
        upload.append(Late())

    assert resumed(store, upload).commit(Digest.of(b"taken over")).size == 10


def lapse(store: Store) -> None:
    with store.database.write() as session:
        session.execute(update(Row).values(writer_until=time.time() - 1))


class StandsStill:
    """A step of a writer that is stopped before it, for longer than its claim lasts, and goes on when told."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real = real
        self._is_first = True
        self.was_reached, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments: object, **named: object) -> object:
        if self._is_first:
            self._is_first = False
            self.was_reached.set()
            assert self.may_go_on.wait(30)
        return self._real(*arguments, **named)


STEPS = {
    "opening the bytes": (FilesystemDriver, "append"),
    "writing": (_Writer, "write"),
    "making durable": (_Writer, "sync"),
    "publishing": (FilesystemDriver, "publish"),
    "renaming": (FilesystemDriver, "_move"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("next_one", ["goes on", "commits"])
def test_a_writer_that_wakes_up_late_spoils_nothing(store, upload, name, tmp_path, monkeypatch, step, next_one):
    upload.append(io.BytesIO(b"durable"))
    asleep = StandsStill(getattr(*STEPS[step]))
    refusals: list[StorageError] = []

    def late() -> None:
        try:
            sleeper = resumed(store, upload)
            if step in ("publishing", "renaming"):
                sleeper.commit(Digest.of(b"durable"))
            else:
                sleeper.append(io.BytesIO(b"LATE BYTES, AND MANY"))
        except StorageError as refusal:
            refusals.append(refusal)

    monkeypatch.setattr(*STEPS[step], lambda *arguments, **named: asleep(*arguments, **named))  # noqa: PLW0108  # binds
    monkeypatch.setattr("storage.claims.RENEW_S", -1.0)
    monkeypatch.setattr("storage.drivers.protocol.HOLD_WAIT_S", 0.05)
    writer = threading.Thread(target=late)
    writer.start()
    assert asleep.was_reached.wait(10)
    lapse(store)

    content = b"durable"
    if next_one == "goes on":
        assert resumed(store, upload).append(io.BytesIO(b" and more")) == 16
        content = b"durable and more"
    resumed(store, upload).commit(Digest.of(content))
    asleep.may_go_on.set()
    writer.join(10)

    with store.blobs.open(name, Digest.of(content)) as blob:
        assert blob.read() == content
    assert [type(refusal) for refusal in refusals] == [UploadBusy]
    with store.database.read() as session:
        assert session.scalars(select(Object.size)).all() == [len(content)]
    assert [path.name for path in uploads_folder(tmp_path / "data").iterdir()] == []


def test_a_session_whose_bytes_are_gone_is_unknown(store, upload, tmp_path):
    upload.append(io.BytesIO(b"abc"))
    for path in uploads_folder(tmp_path / "data").iterdir():
        path.unlink()

    with pytest.raises(UploadUnknown, match="begin again"):
        resumed(store, upload).append(io.BytesIO(b"def"))
    with pytest.raises(UploadUnknown):
        resumed(store, upload).commit(Digest.of(b"abc"))
