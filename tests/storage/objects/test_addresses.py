"""Addresses in a real object store: what whoever has one can do there, and what not."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.objects.direct import SignedParts
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.s3 import S3Bucket
from storage.errors import KeyUnknown
from tests.s3_server import BUCKET

KEY = "blobs/ab/abc"
DATA = b"0123456789" * 100


@pytest.fixture
def parts(s3_bucket: S3Bucket) -> SignedParts:
    return ObjectDriver(s3_bucket).direct


def begun(parts: SignedParts, *, is_summed: bool = False) -> str:
    opened = parts.begin(KEY, is_summed=is_summed)
    assert opened is not None
    return opened[1]


def put(url: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=20)
    connection.request("PUT", f"{where.path}?{where.query}", data, dict(headers or {}))
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_part_is_what_was_sent_last_until_the_upload_is_closed(parts, s3_bucket):
    upload = begun(parts)
    address = parts.address(KEY, upload, 1, size=len(DATA), expires_s=60)
    assert [put(address.url, b"x" * len(DATA)), put(address.url, DATA)] == [200, 200]

    parts.close(KEY, upload, parts.sent(KEY, upload))

    assert put(address.url, b"y" * len(DATA)) == 404
    assert parts.read(KEY, 0, len(DATA)) == DATA
    assert list(s3_bucket.uploads("")) == []
    with pytest.raises(KeyUnknown):
        parts.sent(KEY, upload)


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (DATA[1:], {}),
        (DATA + b"x", {}),
        (DATA, {"x-amz-meta-mine": "1"}),
        (DATA, {"x-amz-copy-source": f"{BUCKET}/objects/of-others"}),
    ],
)
def test_an_address_says_how_many_bytes_and_nothing_besides(parts, data, headers):
    upload = begun(parts)
    address = parts.address(KEY, upload, 1, size=len(DATA), expires_s=60)

    assert put(address.url, data, headers) == 403
    assert put(address.url.replace("partNumber=1", "partNumber=2"), DATA) == 403
    assert parts.sent(KEY, upload) == []


def test_an_address_with_a_sum_takes_no_other_bytes(parts):
    upload, sha256 = begun(parts, is_summed=True), hashlib.sha256(DATA).digest()
    address = parts.address(KEY, upload, 1, size=len(DATA), expires_s=60, sha256=sha256)

    assert put(address.url, b"x" * len(DATA), address.headers) == 400
    assert put(address.url, DATA) == 403
    assert put(address.url, DATA, address.headers) == 200

    assert [part.sha256 for part in parts.sent(KEY, upload)] == [sha256]
    parts.close(KEY, upload, parts.sent(KEY, upload))
    assert parts.read(KEY, 990, 10) == DATA[990:]


def test_an_address_names_the_store_as_clients_reach_it(s3):
    settings = BucketSettings(BUCKET, endpoint=s3.endpoint, public_endpoint="https://store.example:9000")

    bucket = S3Bucket(settings)

    addresses = [bucket.url("objects/x", 60), bucket.part_url("objects/x", "id", 1, 7, 60).url]
    assert [urlsplit(each)[:2] for each in addresses] == [("https", "store.example:9000")] * 2
    assert all("X-Amz-Expires=60" in each for each in addresses)
