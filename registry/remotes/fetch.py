"""One blob on its way from another registry into a repository of the store.

The bytes go into an upload session, so whatever has come is kept by rows: the next attempt goes on from there, in this
request, in a later one, or in another process. Two processes at the same blob take turns at one session: who finds it
busy watches how far the other is.
"""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO, Final, cast

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AnswerInvalid, DigestMismatch, RangeRefused
from registry.remotes.incoming import Incoming
from registry.remotes.jobs import Job
from registry.remotes.repair import Repair, repair_turn
from storage.digest import Digest
from storage.errors import BlobUnknown, DigestInvalid, KeyUnknown, NameUnknown, UploadBusy, UploadUnknown
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.sessions import newest_session, staged_handle
from storage.store import Store
from storage.upload import Upload

MARKER: Final = "pull:"  # what the sessions of all fetches are opened with
_MAX_RESTARTS: Final = 2
_MAX_VANISHED: Final = 5
_MAX_BUSY: Final = 12  # looks, some five seconds each, at a writer that gets nowhere


class Fetch:
    """Brings `blob` from `remote` into `target`. Call it with the job that it is."""

    def __init__(
        self,
        remote: RemoteRepository,
        store: Store,
        target: RepositoryName,
        blob: Descriptor,
        *,
        principal: str,
        first_pause_s: float = 0.5,
    ) -> None:
        self._remote, self._store, self._target, self._blob = remote, store, target, blob
        self._principal, self._first_pause_s = principal, first_pause_s
        self._marker = marker_of(blob.digest)
        self._restarts = self._vanished = self._busy = self._seen = 0
        self._is_repaired = False

    def __call__(self, job: Job[None]) -> None:
        """Until the repository holds the blob. Raises RemoteError, StorageError; what has come by then is kept."""
        while not is_held(self._store, self._target, self._blob, self._principal):
            job.check()
            upload = self._session()
            if not upload.offset and is_held(self._store, self._target, self._blob, self._principal):
                self._drop(upload)  # the session before this one became the blob after we had looked for it
                break
            try:
                self._attempt(upload, job)
            except RangeRefused:
                if not upload.offset:
                    raise
                self._restart(upload, may_again=True)
            except UploadBusy as error:
                self._watch(error, job)
            except UploadUnknown:
                self._vanished += 1
                if self._vanished >= _MAX_VANISHED:
                    raise
        job.completed = self._blob.size

    def _attempt(self, upload: Upload, job: Job[None]) -> None:
        """What is missing, and the commit. Returns early where another writer was at the session too."""
        size = self._blob.size
        with Incoming(self._remote, self._blob, upload, job, first_pause_s=self._first_pause_s) as incoming:
            is_first = True
            while is_first or (upload.offset < size and not incoming.is_astray):
                is_first = False
                upload.append(cast(BinaryIO, incoming), recovers=True)  # it only reads
                job.completed = upload.offset
        if upload.offset > size:
            self._restart(upload, may_again=True)
        elif upload.offset == size:
            try:
                upload.commit(self._blob.digest)
            except DigestInvalid:
                if not self._is_repairable(upload, job):
                    # bytes of an earlier attempt may be to blame: once more, without them
                    self._restart(upload, may_again=incoming.start > 0)

    def _is_repairable(self, upload: Upload, job: Job[None]) -> bool:
        """Whether the wrong bytes of the session could be told from the right ones, and have been replaced."""
        if self._is_repaired:  # and still not the blob: the sums are of no use
            return False
        self._is_repaired = True
        with repair_turn(job) as is_ours:
            return is_ours and self._repair(upload, job)

    def _repair(self, upload: Upload, job: Job[None]) -> bool:
        repair = Repair(self._remote, self._blob, job, first_pause_s=self._first_pause_s)
        handle = staged_handle(self._store.database, self._target, self._marker)
        if handle is None or not (chunks := repair.chunks()):
            return False
        try:
            with self._store.driver.read_staged(handle) as staged:
                is_made = repair.run(chunks, staged, self._start())
        except KeyUnknown:
            return False
        except DigestMismatch:
            self._drop(upload)
            raise
        if is_made:
            self._drop(upload)
        return is_made

    def _restart(self, upload: Upload, *, may_again: bool) -> None:
        """Drop what the session holds. Raises DigestMismatch where that has been tried, or nothing old was in it."""
        self._restarts += 1
        self._drop(upload)
        if not may_again or self._restarts > _MAX_RESTARTS:
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: {self._remote.home} sent other bytes than "
                f"{self._blob.digest}"
            )

    def _drop(self, upload: Upload) -> None:
        with suppress(UploadUnknown, UploadBusy):
            upload.cancel()

    def _session(self) -> Upload:
        """What an earlier attempt left, else a new session; a new one too where another writer stands still."""
        database = self._store.database
        found = newest_session(database, self._target, self._marker) if self._busy < _MAX_BUSY else None
        if found is not None:
            with suppress(UploadUnknown):
                return self._store.uploads.resume(self._target, found)
        is_only, self._busy = self._busy < _MAX_BUSY, 0
        return self._start(is_only=is_only)

    def _start(self, *, is_only: bool = False) -> Upload:
        """is_only: of those who begin at once, one opens the session."""
        return self._store.uploads.start(
            self._target,
            principal=self._principal,
            algorithm=self._blob.digest.algorithm,
            opened_with=self._marker,
            is_only=is_only,
        )

    def _watch(self, error: UploadBusy, job: Job[None]) -> None:
        """Another process fetches the blob: its progress is ours, until it stands still."""
        offset = error.detail.get("offset")
        reached = offset if isinstance(offset, int) else 0
        self._busy = self._busy + 1 if reached <= self._seen else 0
        self._seen = job.completed = reached


def marker_of(digest: Digest) -> str:
    """What the session of a fetch is found by."""
    return f"{MARKER}{digest}"[:64]


def is_held(store: Store, name: RepositoryName, blob: Descriptor, principal: str) -> bool:
    """Whether the repository has the blob; then it stays for this principal's manifest. Raises AnswerInvalid."""
    try:
        held = store.blobs.renew_lease(name, blob.digest, principal=principal)
    except (BlobUnknown, NameUnknown):
        return False
    check_size(blob, held.size)
    return True


def check_size(blob: Descriptor, size: int) -> None:
    """Raises AnswerInvalid where a manifest says another size than the blob here has."""
    if size != blob.size:
        raise AnswerInvalid(f"the manifest says that {blob.digest} has {blob.size} bytes; it has {size}")
