"""The only door to boto3: a bucket of any server that speaks the S3 protocol."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.objects.bucket import Begun, Body, Listed
from storage.errors import KeyUnknown, StorageError, StorageFull, StorageUnavailable

_CONNECT_S: Final = 5
_READ_S: Final = 60  # without a byte; completing a large upload takes a store its time
_ATTEMPTS: Final = 4
_CONNECTIONS: Final = 64
_PAGE: Final = 1000  # of a listing; the most that the protocol has

_GONE: Final = frozenset({"NoSuchKey", "NotFound", "404", "NoSuchUpload"})
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "507"})


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

    def put(self, name: str, data: bytes) -> None:
        with _refusals(name):
            self._client.put_object(**self._at(name), Body=data, ContentMD5=_md5(data))

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

    def begin(self, name: str) -> str:
        with _refusals(name):
            upload: str = self._client.create_multipart_upload(**self._at(name))["UploadId"]
            return upload

    def put_part(self, name: str, upload: str, number: int, body: bytes | bytearray | BinaryIO, size: int) -> str:
        told = {"PartNumber": number, "UploadId": upload, "ContentLength": size}
        if isinstance(body, bytes | bytearray):
            told["ContentMD5"] = _md5(body)
        with _refusals(name):
            etag: str = self._client.upload_part(**self._at(name), **told, Body=body)["ETag"]
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

    def complete(self, name: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        told = {"UploadId": upload, "MultipartUpload": {"Parts": listed}}
        with _refusals(name):
            answer = self._client.complete_multipart_upload(**self._at(name), **told)
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
            url: str = self._client.generate_presigned_url("get_object", Params=self._at(name), ExpiresIn=expires_s)
            return url

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

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._settings.prefix + name}

    def _name(self, key: str) -> str:
        return key.removeprefix(self._settings.prefix)


@lru_cache(maxsize=4)
def _client(endpoint: str, _process: int) -> Any:
    """Shared by all threads; not with the process that forked this one, since they would share connections."""
    config = Config(
        signature_version="s3v4",
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_CONNECTIONS,
        # servers other than AWS refuse checksums in trailers, and may have no name for each bucket
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto", "payload_signing_enabled": False},
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageUnavailable("the object store cannot be used as it is set up", reason=str(error)) from error


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


def _md5(data: bytes | bytearray) -> str:
    """So that the store keeps what we sent; not against anybody."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
