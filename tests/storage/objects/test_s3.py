"""Against a real S3 server: uploads of several parts, and what the server refuses."""

from __future__ import annotations

import io
import random
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from storage.db import Database
from storage.digest import Digest
from storage.drivers import s3 as door
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.choose import check_bucket
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.s3 import S3Bucket
from storage.errors import DigestInvalid, KeyUnknown, StorageFull, StorageUnavailable
from storage.store import Store
from storage.upload import Upload
from tests.s3_server import BUCKET

MIB = 2**20
DATA = random.Random(3).randbytes(41 * MIB)  # two parts and a tail


@pytest.fixture
def driver(s3_bucket: S3Bucket) -> ObjectDriver:
    return ObjectDriver(s3_bucket)


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def upload(store: Store, name) -> Upload:
    return store.uploads.start(name)


def resumed(store: Store, upload: Upload, s3_bucket: S3Bucket) -> Upload:
    """As another node."""
    return Store(store.database, ObjectDriver(s3_bucket)).uploads.resume(upload.name, upload.id)


def forget_clients() -> None:
    door._client.cache_clear()
    door._session.cache_clear()


def left(bucket: S3Bucket) -> list[str]:
    """What staging has left in the bucket."""
    return [found.name for found in bucket.list("staged/")] + [begun.name for begun in bucket.uploads("")]


def test_any_node_goes_on_with_an_upload_and_nothing_is_left_of_it(store, upload, name, s3_bucket):
    for start, end in [(0, 10), (10, 20), (20, 41)]:
        resumed(store, upload, s3_bucket).append(io.BytesIO(DATA[start * MIB : end * MIB]))

    blob = resumed(store, upload, s3_bucket).commit(Digest.of(DATA))

    with store.blobs.open(name, blob.digest, start=20 * MIB) as reader:
        assert reader.read() == DATA[20 * MIB :]
    assert [found.size for found in s3_bucket.list("objects/")] == [len(DATA)]
    assert left(s3_bucket) == []


def test_a_session_whose_bytes_had_to_be_read_before_they_were_published_goes_on(store, name, s3_bucket):
    upload = store.uploads.start(name, algorithm="sha256")
    upload.append(io.BytesIO(DATA))
    with pytest.raises(DigestInvalid):
        upload.commit(Digest.of(b"other", "sha512"))

    resumed(store, upload, s3_bucket).append(io.BytesIO(b"more"))
    blob = resumed(store, upload, s3_bucket).commit(Digest.of(DATA + b"more", "sha512"))

    with store.blobs.open(name, blob.digest) as reader:
        assert reader.read() == DATA + b"more"
    assert len(list(s3_bucket.list("objects/"))) == 1
    assert left(s3_bucket) == []


def test_a_cancelled_upload_leaves_nothing(store, upload, s3_bucket):
    upload.append(io.BytesIO(DATA))

    resumed(store, upload, s3_bucket).cancel()

    assert left(s3_bucket) == []
    assert list(s3_bucket.list("")) == []


def test_orphans_of_the_store_are_swept(driver, s3_bucket):
    class Row:
        handle = driver.stage("blobs/ab/abc")

        def __call__(self, handle: str | None = None, /) -> None:
            self.handle = handle or self.handle

    row = Row()
    with driver.append(row.handle, at=0, fence=row) as writer:
        writer.write(DATA)
        writer.sync()

    assert driver.sweep_staged(lambda _keys: set(), older_than_s=3600.0) == 0
    assert driver.sweep_staged(lambda _keys: set(), older_than_s=-3600.0) == 3

    assert left(s3_bucket) == []


def test_an_object_of_which_no_row_tells_is_reclaimed_once_it_is_old(store, driver, s3_bucket):
    driver.write("blobs/ab/abc", io.BytesIO(b"orphan"))
    assert store.collector.adopt_orphans(older_than_s=3600.0) == 0
    assert store.collector.adopt_orphans(older_than_s=-3600.0) == 1

    store.collector.sweep()

    assert list(s3_bucket.list("")) == []


def test_large_bytes_of_one_source_are_written_whole(driver, s3_bucket):
    assert driver.write("blobs/ab/abc", io.BytesIO(DATA)) == len(DATA)

    with driver.open("blobs/ab/abc") as reader:
        assert reader.read() == DATA
    assert left(s3_bucket) == []


def test_an_address_is_given_only_where_that_is_asked_for(driver, s3_bucket):
    driver.write("blobs/ab/abc", io.BytesIO(b"bytes"))
    assert driver.download_url("blobs/ab/abc", expires_s=60) is None

    url = ObjectDriver(s3_bucket, gives_addresses=True).download_url("blobs/ab/abc", expires_s=60)

    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"bytes"


def test_a_listing_has_as_many_pages_as_it_takes(s3_bucket, monkeypatch):
    monkeypatch.setattr(door, "_PAGE", 2)
    names = [f"objects/{number}" for number in range(5)]
    for name in names:
        s3_bucket.put(name, b"")
        s3_bucket.begin(name)

    assert [found.name for found in s3_bucket.list("objects/")] == names
    assert sorted(begun.name for begun in s3_bucket.uploads("objects/")) == names


def test_a_part_that_was_replaced_is_not_completed(s3_bucket):
    upload = s3_bucket.begin("objects/x")
    etag = s3_bucket.put_part("objects/x", upload, 1, b"ours", 4)
    s3_bucket.put_part("objects/x", upload, 1, b"theirs", 6)

    with pytest.raises(StorageUnavailable):
        s3_bucket.complete("objects/x", upload, [(1, etag)])

    with pytest.raises(KeyUnknown):
        s3_bucket.stat("objects/x")


@pytest.mark.parametrize("bucket", ["nowhere", "Bad..Name"])
def test_a_bucket_that_is_not_there_is_said_to_be(s3, bucket):
    with pytest.raises(StorageUnavailable, match=bucket):
        check_bucket(BucketSettings(bucket, endpoint=s3.endpoint))


def test_a_wrong_secret_is_said_to_be(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    forget_clients()

    with pytest.raises(StorageUnavailable, match="403"):
        check_bucket(BucketSettings(BUCKET, endpoint=s3.endpoint))

    forget_clients()


@contextmanager
def always(status: int, code: str) -> Iterator[S3Bucket]:
    """A bucket of a server that has only this answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield S3Bucket(BucketSettings(BUCKET, endpoint=f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def tries_once(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_ATTEMPTS", 1)


@pytest.mark.parametrize(
    ("status", "code", "refusal"),
    [
        (503, "SlowDown", StorageUnavailable),
        (500, "InternalError", StorageUnavailable),
        (403, "AccessDenied", StorageUnavailable),
        (404, "NoSuchBucket", StorageUnavailable),
        (404, "NoSuchUpload", KeyUnknown),
        (507, "XMinioStorageFull", StorageFull),
        (200, "InternalError", StorageUnavailable),  # the status of a completing is sent before its end is known
    ],
)
def test_what_the_server_refuses_is_an_error_of_the_store(tries_once, status, code, refusal):
    with always(status, code) as bucket, pytest.raises(refusal):
        bucket.complete("objects/x", "upload", [(1, "etag")])


def test_a_server_that_is_not_there_is_unavailable(tries_once):
    with always(200, "-") as bucket:
        pass

    with pytest.raises(StorageUnavailable):
        bucket.put("objects/x", b"")


def test_a_store_is_told_that_its_bytes_cannot_be_had_for_now(tries_once, database: Database, name):
    with always(503, "SlowDown") as bucket:
        store = Store(database, ObjectDriver(bucket))
        upload = store.uploads.start(name)
        with pytest.raises(StorageUnavailable):
            upload.complete(io.BytesIO(b"abc"), Digest.of(b"abc"))

    assert store.uploads.resume(name, upload.id).offset == 0
