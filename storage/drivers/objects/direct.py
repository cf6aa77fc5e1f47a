"""Parts of a multipart upload that clients send to the object store themselves, by addresses that are signed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from storage.drivers.direct import PartAddress, Sent
from storage.drivers.objects.bucket import Bucket
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import object_name, read_all
from storage.drivers.protocol import check_key
from storage.errors import StorageUnavailable

_TRIES: Final = 3  # of a read


class SignedParts:
    """A `DirectParts`. Only ever signs the upload of one part: who could write the object could change it later."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def begin(self, handle: str, *, is_summed: bool) -> tuple[str, str] | None:
        left = Handle.parse(handle)
        if left.writer is not None:
            return None
        return str(left.taken()), self._bucket.begin(object_name(left.key), is_summed=is_summed)

    def address(
        self, key: str, upload: str, number: int, *, size: int, expires_s: int, sha256: bytes | None = None
    ) -> PartAddress:
        return self._bucket.part_url(object_name(check_key(key)), upload, number, size, expires_s, sha256=sha256)

    def sent(self, key: str, upload: str) -> list[Sent]:
        return list(self._bucket.parts(object_name(check_key(key)), upload))

    def close(self, key: str, upload: str, parts: Sequence[Sent]) -> None:
        sums = {part.number: part.sha256 for part in parts if part.sha256 is not None}
        self._bucket.complete(object_name(check_key(key)), upload, [(part.number, part.etag) for part in parts], sums)

    def read(self, key: str, start: int, size: int) -> bytes:
        name = object_name(check_key(key))
        for _ in range(_TRIES - 1):
            with suppress(StorageUnavailable):  # one of many thousand; to give up would be to begin them anew
                return read_all(self._bucket, name, start=start, size=size)
        return read_all(self._bucket, name, start=start, size=size)
