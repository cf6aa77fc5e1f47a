"""The only door to boto3: a bucket of any server that speaks the S3 protocol."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.direct import PartAddress, Sent
from storage.drivers.objects.bucket import Begun, Body, Listed
from storage.drivers.objects.seekable import ViewReader
from storage.errors import KeyUnknown, StorageError, StorageFull, StorageUnavailable

_CONNECT_S: Final = 5
_READ_S: Final = 60  # without a byte
_COMPLETE_S: Final = 600  # some stores put the parts together, byte by byte, before they answer
_ATTEMPTS: Final = 4
_CONNECTIONS: Final = 64
_PAGE: Final = 1000  # of a listing; the most that the protocol has

_GONE: Final = frozenset({"NoSuchKey", "NotFound", "404", "NoSuchUpload"})
_NO_SUMS: Final[Mapping[int, bytes]] = {}
_FETCHED_AS: Final = {  # what a client is told with bytes that it fetches from the store
    "ResponseContentType": "application/octet-stream",
    "ResponseCacheControl": "private, max-age=31536000, immutable",
}
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "507"})

logging.getLogger("botocore").setLevel(logging.INFO)  # below, it tells what it signs, and the signature


class _Body:
    def __init__(self, answer: dict[str, Any]) -> None:
        self.size: int = answer["ContentLength"]
        self._stream = answer["Body"]

    def read(self, size: int) -> bytes:
        with _refusals("-"):
            data: bytes = self._stream.read(size)
            return data

    def close(self) -> None:
        self._stream.close()


class S3Bucket:
    """A `Bucket`. Credentials, region and profile come from boto3's own chain."""

    def __init__(self, settings: BucketSettings) -> None:
        self._settings = settings

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        with _refusals(name):
            self._sends(data).put_object(**self._at(name), Body=data)

    def get(self, name: str, *, start: int = 0, size: int | None = None) -> Body:
        end = "" if size is None else start + size - 1
        asked = {"Range": f"bytes={start}-{end}"} if start or size is not None else {}
        with _refusals(name):
            return _Body(self._client.get_object(**self._at(name), **asked))

    def stat(self, name: str) -> Listed:
        with _refusals(name):
            answer = self._client.head_object(**self._at(name))
        return Listed(name, answer["ContentLength"], answer["LastModified"].timestamp())

    def delete(self, name: str) -> None:
        with _refusals(name):
            self._client.delete_object(**self._at(name))

    def list(self, prefix: str) -> Iterator[Listed]:
        where = {"Bucket": self._settings.bucket, "Prefix": self._settings.prefix + prefix, "MaxKeys": _PAGE}
        token: dict[str, str] = {}
        while True:
            with _refusals(prefix):
                page = self._client.list_objects_v2(**where, **token)
            for each in page.get("Contents", ()):
                yield Listed(self._name(each["Key"]), each["Size"], each["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def begin(self, name: str, *, is_summed: bool = False) -> str:
        told = {"ChecksumAlgorithm": "SHA256"} if is_summed else {}
        with _refusals(name):
            upload: str = self._client.create_multipart_upload(**self._at(name), **told)["UploadId"]
            return upload

    def put_part(self, name: str, upload: str, number: int, body: bytes | bytearray | BinaryIO, size: int) -> str:
        told = {"PartNumber": number, "UploadId": upload, "ContentLength": size}
        with _refusals(name):
            etag: str = self._sends(body).upload_part(**self._at(name), **told, Body=body)["ETag"]
            return etag

    def copy_part(self, name: str, upload: str, number: int, source: str, *, start: int, size: int) -> str:
        told = {
            "PartNumber": number,
            "UploadId": upload,
            "CopySource": {"Bucket": self._settings.bucket, "Key": self._settings.prefix + source},
            "CopySourceRange": f"bytes={start}-{start + size - 1}",
        }
        with _refusals(name):
            etag: str = self._client.upload_part_copy(**self._at(name), **told)["CopyPartResult"]["ETag"]
            return etag

    def complete(
        self, name: str, upload: str, parts: Sequence[tuple[int, str]], sums: Mapping[int, bytes] = _NO_SUMS
    ) -> None:
        told_of = {number: {"ChecksumSHA256": base64.b64encode(each).decode()} for number, each in sums.items()}
        listed = [{"PartNumber": number, "ETag": etag, **told_of.get(number, {})} for number, etag in parts]
        told = {"UploadId": upload, "MultipartUpload": {"Parts": listed}}
        with _refusals(name):
            answer = self._patient.complete_multipart_upload(**self._at(name), **told)
        if "ETag" not in answer:  # the status is sent before the work is done, so it tells nothing
            raise StorageUnavailable("the object store did not complete the upload")

    def abort(self, name: str, upload: str) -> None:
        try:
            with _refusals(name):
                self._client.abort_multipart_upload(**self._at(name), UploadId=upload)
        except KeyUnknown:
            return

    def uploads(self, prefix: str) -> Iterator[Begun]:
        after = ""  # by name alone: not every server takes its own marker of an upload back
        while True:
            where = {"Bucket": self._settings.bucket, "Prefix": self._settings.prefix + prefix}
            with _refusals(prefix):
                page = self._client.list_multipart_uploads(**where, MaxUploads=_PAGE, KeyMarker=after)
            for each in page.get("Uploads", ()):
                yield Begun(self._name(each["Key"]), each["UploadId"], each["Initiated"].timestamp())
            if not page.get("IsTruncated"):
                return
            after = page["NextKeyMarker"]

    def url(self, name: str, expires_s: int) -> str:
        with _refusals(name):
            asked = self._at(name) | _FETCHED_AS
            url: str = self._public.generate_presigned_url("get_object", Params=asked, ExpiresIn=expires_s)
            return url

    def part_url(
        self, name: str, upload: str, number: int, size: int, expires_s: int, *, sha256: bytes | None = None
    ) -> PartAddress:
        headers = {} if sha256 is None else {"x-amz-checksum-sha256": base64.b64encode(sha256).decode()}
        asked: dict[str, Any] = {"UploadId": upload, "PartNumber": number, "ContentLength": size}
        if sha256 is not None:
            asked["ChecksumSHA256"] = headers["x-amz-checksum-sha256"]
        with _refusals(name):
            signed = self._public.generate_presigned_url("upload_part", self._at(name) | asked, ExpiresIn=expires_s)
            return PartAddress(signed, headers)

    def parts(self, name: str, upload: str) -> Iterator[Sent]:
        after = 0
        while True:
            with _refusals(name):
                page = self._client.list_parts(**self._at(name), UploadId=upload, PartNumberMarker=after)
            for each in page.get("Parts", ()):
                told = each.get("ChecksumSHA256")
                sha256 = base64.b64decode(told) if told else None
                yield Sent(each["PartNumber"], each["Size"], each["ETag"], sha256)
            if not page.get("IsTruncated"):
                return
            after = page["NextPartNumberMarker"]

    def check(self) -> None:
        """Raises StorageUnavailable, saying why, if the bucket cannot be reached with these credentials."""
        where = f"the bucket {self._settings.bucket} at {self._settings.endpoint or 'AWS'}"
        try:
            with _refusals(self._settings.bucket):
                self._client.head_bucket(Bucket=self._settings.bucket)
        except KeyUnknown:
            raise StorageUnavailable(f"{where} is not there") from None
        except StorageError as error:
            raise StorageUnavailable(f"{where} cannot be used: {error.detail.get('reason', error)}") from error

    @property
    def _client(self) -> Any:
        return _client(self._settings.endpoint, os.getpid())

    @property
    def _patient(self) -> Any:
        return _client(self._settings.endpoint, os.getpid(), read_s=_COMPLETE_S, attempts=3)

    def _sends(self, body: bytes | bytearray | BinaryIO) -> Any:
        """What is in memory goes with its sha256: the store keeps what we sent. The rest would be read twice for it."""
        is_near = isinstance(body, bytes | bytearray | ViewReader)
        return self._client if is_near else _client(self._settings.endpoint, os.getpid(), signs_bodies=False)

    @property
    def _public(self) -> Any:
        """Signs addresses for clients: the host is part of what is signed."""
        return _client(self._settings.public_endpoint or self._settings.endpoint, os.getpid())

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._settings.prefix + name}

    def _name(self, key: str) -> str:
        return key.removeprefix(self._settings.prefix)


@lru_cache(maxsize=8)
def _client(
    endpoint: str, process: int, *, signs_bodies: bool = True, read_s: int = _READ_S, attempts: int = _ATTEMPTS
) -> Any:
    """Shared by all threads; not with the process that forked this one, since they would share connections."""
    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_S,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=_CONNECTIONS,
        # servers other than AWS refuse checksums in trailers, and may have no name for each bucket
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": signs_bodies},
    )
    try:
        return _session(process).client("s3", endpoint_url=endpoint or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageUnavailable("the object store cannot be used as it is set up", reason=str(error)) from error


@lru_cache(maxsize=1)
def _session(_process: int) -> boto3.session.Session:
    """It reads the description of the protocol once for all its clients, which takes 12 MiB."""
    return boto3.session.Session()


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What the object store says, as ours."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, name) from error
    except ParamValidationError as error:
        raise StorageUnavailable("the object store cannot be used as it is set up", reason=str(error)) from error
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise StorageUnavailable("the object store does not answer", reason=type(error).__name__) from error


def _refusal(error: ClientError, name: str) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _GONE:
        return KeyUnknown("no such key", key=name[:200])
    if code in _FULL:
        return StorageFull("no space left for the bytes")
    return StorageUnavailable("the object store refuses", reason=code[:100])
