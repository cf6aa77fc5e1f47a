"""A blob's bytes copied into the store, hashed on the way; the next import goes on where this one was ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, cast

from registry.ollama_store.folder import BlobFile
from storage.digest import Digest
from storage.errors import DigestInvalid, UploadBusy, UploadUnknown
from storage.reference import RepositoryName
from storage.sessions import newest_session
from storage.store import Store
from storage.upload import Upload


def copy(
    store: Store, name: RepositoryName, digest: Digest, file: BlobFile, *, principal: str, hashed: Callable[[int], None]
) -> None:
    """Make the file's bytes the blob `digest` of the repository.

    Once more from the start, if what an earlier import left may be to blame. Raises DigestInvalid if they are other
    bytes, UploadBusy while another import copies them, and OSError if the file cannot be read.
    """
    while True:
        upload = _session(store, name, digest, principal)
        rest = _Rest(file, upload, hashed)
        upload.append(cast(BinaryIO, rest))  # it only reads
        try:
            upload.commit(digest)
            return
        except DigestInvalid:
            with suppress(UploadUnknown, UploadBusy):
                upload.cancel()
            if rest.start == 0:
                raise


def _session(store: Store, name: RepositoryName, digest: Digest, principal: str) -> Upload:
    """What an earlier import left, else a new one."""
    marker = f"import:{digest}"[:64]
    found = newest_session(store.database, name, marker)
    if found is not None:
        with suppress(UploadUnknown):
            return store.uploads.resume(name, found)
    return store.uploads.start(name, principal=principal, algorithm=digest.algorithm, opened_with=marker)


class _Rest:
    """The file from where the session ends, which is known once the session is ours: at the first read."""

    def __init__(self, file: BlobFile, upload: Upload, hashed: Callable[[int], None]) -> None:
        self._file, self._upload, self._hashed = file, upload, hashed
        self._at = -1
        self.start = 0

    def read(self, size: int) -> bytes:
        if self._at < 0:
            self._at = self.start = self._upload.offset
        left = max(0, self._file.stat.st_size - self._at)  # one that grows meanwhile is not read for ever
        data = os.pread(self._file.handle, min(size, left), self._at)
        self._at += len(data)
        self._hashed(self._at)
        return data
