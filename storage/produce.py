"""Blobs that this server makes itself, as a file that a program of ours writes: where the driver keeps files no byte of
it is copied, and to a bucket it goes once it is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final, cast

from storage.blobs import BlobInfo
from storage.claims import Claim, claimed
from storage.digest import Digest, Hasher
from storage.durable import NO_SPACE
from storage.errors import StorageFull, UploadUnknown
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload

_READ_BYTES: Final = 1024 * 1024
_ALGORITHM: Final = "sha256"

Write = Callable[[Path, Callable[[], None]], None]


def produce_blob(
    store: Store,
    name: RepositoryName,
    write: Write,
    *,
    principal: str | None = None,
    hashed: Callable[[int], None] = lambda size: None,
    check: Callable[[Digest], None] = lambda digest: None,
) -> BlobInfo:
    """A blob of whatever `write` leaves in a file, leased to `principal`.

    write: called with where the file is to be, and with what it calls every few seconds. hashed: told how far reading
    it is. check: told the digest before it becomes a blob. Raises what these raise, StorageFull where the disk takes no
    more, and StorageUnavailable where this process has no place for files; nothing is left behind then.
    """
    upload = store.uploads.start(name, principal=principal, algorithm=_ALGORITHM)
    try:
        digest = _written(store, upload, write, hashed)
        check(digest)
        return upload.commit(digest)
    except BaseException:
        with suppress(UploadUnknown):
            upload.cancel()
        raise


def _written(store: Store, upload: Upload, write: Write, hashed: Callable[[int], None]) -> Digest:
    """Let the file be written, and become the session's bytes."""
    with claimed(store.database, upload.id) as claim:
        path = store.driver.staged_path(claim.row.handle)
        if path is not None:
            _write(write, path, claim)
            return _counted_in(claim, path, hashed)
    with store.files.made_file() as path:
        with claimed(store.database, upload.id) as claim:
            _write(write, path, claim)
        with path.open("rb", buffering=0) as file:
            upload.append(cast("BinaryIO", _Told(file, hashed)))
    digest = upload.digest_so_far()
    assert digest is not None  # the session was begun with that algorithm
    return digest


def _write(write: Write, path: Path, claim: Claim) -> None:
    try:
        write(path, claim.keep)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull("no space left for the bytes") from error
        raise


def _counted_in(claim: Claim, path: Path, hashed: Callable[[int], None]) -> Digest:
    """Remember in the session how long the file is and what it hashes to: it is the staged bytes themselves."""
    hasher, size = Hasher((_ALGORITHM,)), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
            size += len(piece)
            hashed(size)
            claim.keep()
    claim.release(offset=size, states=hasher.states())
    return hasher.digests()[_ALGORITHM]


class _Told:
    """Reads of a file, told of as they come."""

    def __init__(self, file: FileIO, told: Callable[[int], None]) -> None:
        self._file, self._told, self._size = file, told, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size) or b""
        self._size += len(data)
        self._told(self._size)
        return data
