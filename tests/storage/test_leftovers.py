"""A node that dies once a session's row has ended, and before its bytes are gone: the next sweep takes them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from sqlalchemy import func, select

from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.protocol import Driver
from storage.errors import StorageUnavailable
from storage.layout import BLOBS
from storage.models import Object
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload
from tests.storage.objects.counted import CountingBucket

DATA = b"weights" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture(params=["files", "objects"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    return FilesystemDriver(tmp_path / "data") if request.param == "files" else ObjectDriver(CountingBucket())


@pytest.fixture
def published(store: Store, name: RepositoryName, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """A session whose commit died between bytes and rows."""
    upload = store.uploads.start(name)
    upload.append(io.BytesIO(DATA))
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr("storage.upload.admit", _die)
        upload.commit(DIGEST)
    return store.uploads.resume(name, upload.id)


def _die(*_arguments: object, **_more: object) -> None:
    raise MemoryError


def _refuse(*_arguments: object, **_more: object) -> None:
    raise StorageUnavailable("the bucket does not answer")


def _is_clean(store: Store, driver: Driver, *, kept: int) -> bool:
    """Whether there are as many objects as are kept, in rows and in bytes."""
    with store.database.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(Object)).scalar_one()
    return rows == len(list(driver.keys(BLOBS))) == kept


def test_bytes_of_a_cancelled_session(store, driver, published, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(driver, "discard", _die)
        published.cancel()
    assert len(list(driver.keys(BLOBS))) == 1

    store.collector.sweep()

    assert _is_clean(store, driver, kept=0)


def test_bytes_of_an_expired_session(store, driver, published, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(driver, "discard", _die)
        store.uploads.expire(idle_s=-1)
    assert len(list(driver.keys(BLOBS))) == 1

    store.collector.sweep()

    assert _is_clean(store, driver, kept=0)


@pytest.mark.parametrize("way", ["session", "at once"])
def test_the_second_copy_of_a_blob(store, driver, name, monkeypatch, way):
    store.blobs.put(name, DATA)
    upload = store.uploads.start(name)
    upload.append(io.BytesIO(DATA))
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(driver, "delete", _die)
        if way == "session":
            upload.commit(DIGEST)
        else:
            store.blobs.put(name, DATA)
    if way == "at once":
        upload.cancel()
    assert len(list(driver.keys(BLOBS))) == 2

    store.collector.sweep()

    assert _is_clean(store, driver, kept=1)
    with store.blobs.open(name, DIGEST) as file:
        assert file.read() == DATA


def test_a_blob_that_is_here_is_not_refused_for_a_copy_that_cannot_be_dropped(store, driver, name, monkeypatch):
    store.blobs.put(name, DATA)
    with monkeypatch.context() as patched:
        patched.setattr(driver, "delete", _refuse)
        assert store.blobs.put(name, DATA).digest == DIGEST
    assert len(list(driver.keys(BLOBS))) == 2

    store.collector.sweep()

    assert _is_clean(store, driver, kept=1)


@pytest.mark.parametrize("end", ["cancelled", "expired", "committed twice"])
def test_no_mark_is_left_of_what_was_dropped(store, driver, name, published, end):
    if end == "cancelled":
        published.cancel()
    elif end == "expired":
        store.uploads.expire(idle_s=-1)
    else:
        store.blobs.put(name, DATA)
        published.commit(DIGEST)

    assert _is_clean(store, driver, kept=end == "committed twice")
