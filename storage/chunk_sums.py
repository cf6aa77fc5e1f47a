"""The digests of a blob's chunks: by them a client finds which bytes of a blob are wrong, and fetches only those."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from sqlalchemy import select

from storage.blobs import BlobInfo, Blobs
from storage.db import Database, insert
from storage.digest import Digest
from storage.errors import StorageUnavailable
from storage.models import LIVE, Object
from storage.models import ChunkSums as Row
from storage.reference import RepositoryName

CHUNK_BYTES: Final = 8 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
_SUM_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Chunk:
    """The digest of a blob's bytes from `first` to `last`, both inclusive."""

    digest: Digest
    first: int
    last: int


class ChunkSums:
    """Made when they are first asked for, and kept with the bytes that they are of."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    def kept(self, blob: BlobInfo) -> Iterator[Chunk] | None:
        """The chunks of the blob in turn; None where nobody has asked for them yet."""
        query = select(Row.chunk_bytes, Row.sums).join(Object, Object.id == Row.object_id)
        with self._database.connect() as connection:
            row = connection.execute(query.where(Object.storage_key == blob.key)).one_or_none()
        if row is None:
            return None
        starts = range(0, len(row.sums), _SUM_BYTES)
        return _chunks([row.sums[at : at + _SUM_BYTES] for at in starts], row.chunk_bytes, blob.size)

    def make(self, name: RepositoryName, blob: BlobInfo) -> Iterator[Chunk]:
        """The chunks in turn, each as soon as it has been read; with the last one they are kept.

        Raises BlobUnknown, NameUnknown; StorageUnavailable where the bytes are fewer than they were.
        """
        sums = list[bytes]()
        with self._blobs.open(name, blob.digest) as file:
            for start in range(0, blob.size, CHUNK_BYTES):
                size = min(CHUNK_BYTES, blob.size - start)
                sums.append(_sum(file, size))
                if start + size == blob.size:
                    self._keep(blob, b"".join(sums))
                yield Chunk(Digest("sha256", sums[-1].hex()), start, start + size - 1)

    def _keep(self, blob: BlobInfo, sums: bytes) -> None:
        """Unless the object is gone by now, or somebody else was faster."""
        alive = select(Object.id).where(Object.storage_key == blob.key, Object.state == LIVE)
        with self._database.begin() as connection:
            object_id = connection.execute(alive.with_for_update(key_share=True)).scalar_one_or_none()
            if object_id is not None:
                row = insert(connection, Row).values(object_id=object_id, chunk_bytes=CHUNK_BYTES, sums=sums)
                connection.execute(row.on_conflict_do_nothing())


def _chunks(sums: Sequence[bytes], chunk_bytes: int, size: int) -> Iterator[Chunk]:
    for at, each in enumerate(sums):
        first = at * chunk_bytes
        yield Chunk(Digest("sha256", each.hex()), first, min(first + chunk_bytes, size) - 1)


def _sum(file: BinaryIO, size: int) -> bytes:
    """sha256 of the next `size` bytes. Raises StorageUnavailable where there are fewer."""
    hasher = hashlib.sha256()
    while size:
        block = file.read(min(size, _READ_BYTES))
        if not block:
            raise StorageUnavailable("the bytes of the blob are fewer than they were")
        hasher.update(block)
        size -= len(block)
    return hasher.digest()
