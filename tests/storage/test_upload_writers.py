"""One writer at a time holds an upload session."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import update

from storage.digest import Digest
from storage.errors import UploadBusy
from storage.models import Upload as Row
from storage.reference import RepositoryName
from storage.store import Store
from storage.uploads import Upload


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
