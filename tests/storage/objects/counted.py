"""Parts so small that the largest uploads take no bytes to speak of, and a bucket that counts."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

import pytest

from storage.drivers.direct import PartAddress, Sent
from storage.drivers.objects import driver, moving, parts, writer
from storage.drivers.objects.bucket import Begun, Listed
from storage.errors import KeyUnknown, StorageUnavailable

NO_SUMS: Final[Mapping[int, bytes]] = {}


class _Body:
    def __init__(self, data: bytes) -> None:
        self.size, self._stream = len(data), io.BytesIO(data)

    def cut(self, after: int | None) -> None:
        self._stream.truncate(after if after is not None else self.size)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


class CountingBucket:
    """A `Bucket` in memory, as the S3 protocol has it: parts are replaced by number, and read by nobody."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.begun: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.calls: Counter[str] = Counter()
        self.completed: list[int] = []  # the number of parts of each upload
        self.answers_lost = 0  # of so many next writes of an object below `objects/`
        self.cut_after: int | None = None  # bytes of each answer
        self.has_sums = True  # tells the sha256 of parts

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        self.calls["put"] += 1
        self.objects[name] = data if isinstance(data, bytes) else data.read()
        self._may_lose_answer(name)

    def get(self, name: str, *, start: int = 0, size: int | None = None) -> _Body:
        self.calls["get"] += 1
        data = self._object(name)
        body = _Body(data[start:] if size is None else data[start : start + size])
        body.cut(self.cut_after)
        return body

    def stat(self, name: str) -> Listed:
        return Listed(name, len(self._object(name)), time.time())

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def list(self, prefix: str) -> Iterator[Listed]:
        return iter([self.stat(name) for name in sorted(self.objects) if name.startswith(prefix)])

    def begin(self, name: str, *, is_summed: bool = False) -> str:
        if is_summed and not self.has_sums:
            raise StorageUnavailable("not implemented")
        self.calls["begin"] += 1
        upload = str(self.calls["begin"])
        self.begun[upload] = (name, {})
        return upload

    def put_part(self, name: str, upload: str, number: int, body: bytes | bytearray | BinaryIO, size: int) -> str:
        self.calls["put_part"] += 1
        data = bytes(body) if isinstance(body, bytes | bytearray) else body.read()
        assert len(data) == size
        assert 1 <= number <= parts.MAX_PARTS
        self._parts(name, upload)[number] = data
        return _etag(data)

    def copy_part(self, name: str, upload: str, number: int, source: str, *, start: int, size: int) -> str:
        self.calls["copy_part"] += 1
        data = self._object(source)[start : start + size]
        self._parts(name, upload)[number] = data
        return _etag(data)

    def complete(
        self, name: str, upload: str, parts: Sequence[tuple[int, str]], sums: Mapping[int, bytes] = NO_SUMS
    ) -> None:
        kept = self._parts(name, upload)
        if any(_etag(kept.get(number, b"")) != etag for number, etag in parts):
            raise StorageUnavailable("not these parts")
        assert [number for number, _ in parts] == sorted({number for number, _ in parts})
        self.objects[name] = b"".join(kept[number] for number, _ in parts)
        self.completed.append(len(parts))
        del self.begun[upload]
        self._may_lose_answer(name)

    def abort(self, name: str, upload: str) -> None:
        self.begun.pop(upload, None)

    def uploads(self, prefix: str) -> Iterator[Begun]:
        begun = [(name, upload) for upload, (name, _) in self.begun.items() if name.startswith(prefix)]
        return (Begun(name, upload, time.time()) for name, upload in begun)

    def url(self, name: str, expires_s: int) -> str:
        return f"memory:{name}?{expires_s}"

    def part_url(
        self, name: str, upload: str, number: int, size: int, expires_s: int, *, sha256: bytes | None = None
    ) -> PartAddress:
        return PartAddress(f"memory:{name}?{upload}&{number}&{size}", {} if sha256 is None else {"sum": sha256.hex()})

    def parts(self, name: str, upload: str) -> Iterator[Sent]:
        for number, data in sorted(self._parts(name, upload).items()):
            yield Sent(number, len(data), _etag(data), hashlib.sha256(data).digest() if self.has_sums else None)

    def _may_lose_answer(self, name: str) -> None:
        if self.answers_lost and name.startswith("objects/"):
            self.answers_lost -= 1
            raise StorageUnavailable("the object store does not answer")

    def _object(self, name: str) -> bytes:
        try:
            return self.objects[name]
        except KeyError:
            raise KeyUnknown("no such key", key=name) from None

    def _parts(self, name: str, upload: str) -> dict[int, bytes]:
        try:
            found, kept = self.begun[upload]
        except KeyError:
            raise KeyUnknown("no such upload", key=name) from None
        assert found == name
        return kept


def scale_parts(monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    """All sizes a `by`th of what they are; the numbers of the parts stay."""
    block = parts.BLOCK_BYTES // by
    monkeypatch.setattr(parts, "_SIZES", tuple((last, size // by) for last, size in parts._SIZES))
    for module in (driver, moving, parts, writer):
        monkeypatch.setattr(module, "BLOCK_BYTES", block)


def _etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
