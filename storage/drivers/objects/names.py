"""What lies where in the bucket, and how the record and the pieces of staged bytes are read and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import BinaryIO, Final

from storage.drivers.objects.bucket import Body, Bucket
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.parts import Piece, Staged
from storage.errors import KeyUnknown, StorageUnavailable

OBJECTS: Final = "objects/"
STAGED: Final = "staged/"

_log: Final = logging.getLogger("tonnage.objects")


def object_name(key: str) -> str:
    return OBJECTS + key


def staged_folder(key: str) -> str:
    return f"{STAGED}{key}/"


def staged_key(name: str) -> str:
    """The key for which this object below `staged/` is kept."""
    return name.removeprefix(STAGED).rpartition("/")[0]


def read_all(bucket: Bucket, name: str, *, start: int = 0, size: int | None = None) -> bytes:
    """A small object, or a range of one. Raises KeyUnknown, and StorageUnavailable for an answer that was cut."""
    body = bucket.get(name, start=start, size=size)
    try:
        data = body.read(body.size)  # all of it, as a rule: several of these may be in memory at once
        while len(data) < body.size and (more := body.read(body.size - len(data))):
            data += more
    finally:
        body.close()
    if len(data) != body.size or (size is not None and size != body.size):
        raise StorageUnavailable("the object store broke off its answer")
    return data


class Desk:
    """The objects below `staged/` of one handle."""

    def __init__(self, bucket: Bucket, handle: Handle) -> None:
        self._bucket = bucket
        self._folder = staged_folder(handle.key)
        self._writer = handle.writer

    def load(self) -> Staged:
        """What the handle's writer recorded last; nothing if it came to record nothing."""
        try:
            return Staged.from_json(read_all(self._bucket, self._record)) if self._writer is not None else Staged()
        except KeyUnknown:
            return Staged()

    def record(self, staged: Staged) -> None:
        self.put_record(staged.to_json())

    def put_record(self, data: bytes) -> None:
        self._bucket.put(self._record, data)

    def open(self, piece: Piece, start: int = 0) -> Body:
        """The bytes of a piece, from `start` within it on. Raises KeyUnknown."""
        return self._bucket.get(self._folder + piece.name, start=start, size=piece.size - start)

    def add(self, staged: Staged, data: BinaryIO, start: int, size: int) -> None:
        """Store `size` bytes as the next piece, from a seekable `data`."""
        name = f"piece-{self._writer}-{start:x}"
        self._bucket.put(self._folder + name, data)
        staged.pieces.append(Piece(name, start, size))

    def drop(self, pieces: Iterable[Piece], *, with_record: bool = False) -> None:
        """What cannot be deleted now is left to the sweep."""
        names = [piece.name for piece in pieces]
        try:
            for name in names:
                self._bucket.delete(self._folder + name)
            if with_record:
                self._bucket.delete(self._record)
        except StorageUnavailable as error:
            _log.warning("left over: folder=%s pieces=%d: %s", self._folder, len(names), error)

    @property
    def _record(self) -> str:
        return f"{self._folder}record-{self._writer}"
