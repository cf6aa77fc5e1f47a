"""One blob of an archive on its way into a repository of the store.

The bytes go into an upload session, so an import that was ended is gone on with in the middle of a blob.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final, cast

from registry.carry.errors import BlobDamaged, CarryError
from registry.carry.reader import Archive, Stored
from storage.digest import Digest
from storage.errors import BlobUnknown, DigestInvalid, NameUnknown, UploadBusy, UploadUnknown
from storage.reference import RepositoryName
from storage.sessions import newest_session
from storage.store import Store
from storage.upload import Upload

PRINCIPAL: Final = "import"
_MAX_VANISHED: Final = 5
_MAX_BUSY: Final = 12  # looks, some five seconds each, at a writer that gets nowhere; a dead one lets go after thirty


def hold(store: Store, repository: RepositoryName, digest: Digest) -> bool:
    """Whether the repository has the blob, or gets it from another one; then it stays until the manifest is here."""
    with suppress(BlobUnknown, NameUnknown):
        store.blobs.renew_lease(repository, digest, principal=PRINCIPAL)
        return True
    holders = store.blobs.holders(digest)
    return any(store.blobs.mount(digest, source=each, into=repository, principal=PRINCIPAL) for each in holders)


class Intake:
    """Brings one blob into `repository`."""

    def __init__(
        self,
        store: Store,
        archive: Archive,
        repository: RepositoryName,
        digest: Digest,
        *,
        moved: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        """moved: told how many bytes of the blob are read by now."""
        self._store, self._archive, self._repository, self._digest = store, archive, repository, digest
        self._moved, self._say = moved, say
        self._vanished = self._busy = self._seen = 0

    def run(self) -> None:
        """Until the repository holds the blob. Raises BlobDamaged, CarryError, StorageError; what has come is kept."""
        stored = self._archive.blobs[self._digest]
        while not hold(self._store, self._repository, self._digest):
            upload = self._session()
            try:
                self._attempt(upload, stored)
            except UploadBusy as error:
                self._watch(error)
            except UploadUnknown:
                self._vanished += 1
                if self._vanished >= _MAX_VANISHED:
                    raise

    def _attempt(self, upload: Upload, stored: Stored) -> None:
        if upload.offset:
            self._say(f"going on with {self._digest} behind its first {upload.offset} bytes")
        rest = _Rest(self._archive, stored, upload, self._moved)
        upload.append(cast(BinaryIO, rest))  # it only reads
        try:
            upload.commit(self._digest)
        except DigestInvalid:
            upload.cancel()
            if not rest.start:  # else bytes of an earlier import may be to blame: once more, without them
                raise BlobDamaged(f"the archive holds other bytes than {self._digest}") from None

    def _session(self) -> Upload:
        """What an earlier import left, else a new session."""
        uploads, marker = self._store.uploads, f"import:{self._digest}"[:64]
        found = newest_session(self._store.database, self._repository, marker)
        if found is not None:
            with suppress(UploadUnknown):
                return uploads.resume(self._repository, found)
        algorithm = self._digest.algorithm
        return uploads.start(self._repository, principal=PRINCIPAL, algorithm=algorithm, opened_with=marker)

    def _watch(self, error: UploadBusy) -> None:
        """Another import stores the blob, or one was killed and its claim has not lapsed yet. Raises CarryError."""
        offset = error.detail.get("offset")
        reached = offset if isinstance(offset, int) else 0
        if not self._seen and not self._busy:
            self._say(f"waiting for another import that stores {self._digest}")
        self._busy = self._busy + 1 if reached <= self._seen else 0
        self._seen = reached
        if self._busy > _MAX_BUSY:
            raise CarryError(f"another import holds {self._digest} and gets nowhere; end it, then import again")


class _Rest:
    """What a session lacks of a blob, as the store reads it. Its start is known at the first read, when it is ours."""

    def __init__(self, archive: Archive, stored: Stored, upload: Upload, moved: Callable[[int], None]) -> None:
        self._archive, self._stored, self._upload, self._moved = archive, stored, upload, moved
        self._at: int | None = None
        self.start = 0

    def read(self, size: int) -> bytes:
        if self._at is None:
            self._at = self.start = self._upload.offset
        block = self._archive.read_at(self._stored, self._at, size)
        self._at += len(block)
        self._moved(self._at)
        return block
