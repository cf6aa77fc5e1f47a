"""Blobs that this server makes itself, as a file that a program of ours writes: no byte of it is copied."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.blobs import BlobInfo
from storage.claims import Claim, claimed
from storage.digest import Digest, Hasher
from storage.drivers.protocol import Driver
from storage.durable import NO_SPACE
from storage.errors import StorageFull, StorageUnavailable, UploadUnknown
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
    more, and StorageUnavailable where the driver keeps no files; nothing is left behind then.
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
    """Let the file be written, and remember in the session how long it is and what it hashes to."""
    with claimed(store.database, upload.id) as claim:
        path = _place(store.driver, claim)
        try:
            write(path, claim.keep)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise StorageFull("no space left for the bytes") from error
            raise
        hasher, size = Hasher((_ALGORITHM,)), 0
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_READ_BYTES):
                hasher.update(piece)
                size += len(piece)
                hashed(size)
                claim.keep()
        claim.release(offset=size, states=hasher.states())
    return hasher.digests()[_ALGORITHM]


def _place(driver: Driver, claim: Claim) -> Path:
    path = driver.staged_path(claim.row.handle)
    if path is None:
        raise StorageUnavailable("where this server keeps its bytes, nothing can be written as a file")
    return path
