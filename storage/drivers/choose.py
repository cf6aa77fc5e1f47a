"""Where bytes are kept, as the settings say. boto3 is loaded only where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from storage import layout
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.protocol import Driver
from storage.local_copies.copies import CopyLimits, LocalCopies
from storage.local_copies.folder import CopyFolder

if TYPE_CHECKING:
    from storage.drivers.s3 import S3Bucket


def open_driver(data: Path, bucket: BucketSettings | None) -> Driver:
    """Files below `data`, or objects of `bucket` where there is one."""
    if bucket is None:
        return FilesystemDriver(data)
    return ObjectDriver(_open_bucket(bucket), gives_addresses=bucket.gives_addresses)


def open_copies(data: Path, driver: Driver, limits: CopyLimits) -> LocalCopies | None:
    """Local copies of what lies in a bucket; None where `driver` keeps files of its own."""
    if not isinstance(driver, ObjectDriver):
        return None
    return LocalCopies(CopyFolder(layout.cache_folder(data), limits.most_bytes), driver, limits)


def check_bucket(bucket: BucketSettings | None) -> None:
    """Raises StorageUnavailable, saying why, where there is to be a bucket and none answers."""
    if bucket is not None:
        _open_bucket(bucket).check()


def _open_bucket(bucket: BucketSettings) -> S3Bucket:
    from storage.drivers.s3 import S3Bucket  # noqa: PLC0415  # takes half a second, and need not be installed

    return S3Bucket(bucket)
