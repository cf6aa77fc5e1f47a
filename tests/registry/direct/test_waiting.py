"""A commit that takes long, and the client that asks again meanwhile."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migrations.run import upgrade
from registry import direct_uploads
from storage import direct
from storage.chunks import ChunkRange
from storage.db import Database
from storage.digest import Digest
from storage.drivers.objects.driver import ObjectDriver
from storage.errors import UploadUnknown
from storage.reference import RepositoryName
from storage.store import Store
from tests.storage.objects.counted import CountingBucket

NAME = RepositoryName("team/model")
DATA = os.urandom(1000)


def test_a_repeated_commit_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{tmp_path}/t.db"
    upgrade(url)
    bucket, database = CountingBucket(), Database(url)
    store = Store(database, ObjectDriver(bucket))
    monkeypatch.setattr(direct, "LEAST_PART", 1)
    upload_id = store.uploads.start(NAME).id
    store.direct.address(upload_id, ChunkRange(0, 999), may_begin=True)
    (begun,) = bucket.uploads("")
    bucket.put_part(begun.name, begun.upload, 1, DATA, 1000)
    reads, reading, may_read = bucket.get, threading.Event(), threading.Event()

    def get(*args: object, **named: object) -> object:
        reading.set()
        assert may_read.wait(20)
        return reads(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket, "get", get)
    upload, digest = store.uploads.resume(NAME, upload_id), Digest.of(DATA)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(direct_uploads.commit, upload, digest)
        assert reading.wait(20)
        second = pool.submit(direct_uploads.commit, store.uploads.resume(NAME, upload_id), digest)
        may_read.set()
        first.result(20)
        with pytest.raises(UploadUnknown):
            second.result(20)

    assert store.uploads.finished(NAME, upload_id) == digest
    database.close()
