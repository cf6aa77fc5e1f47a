"""One blob on its way from another registry into a repository of the store.

The bytes go into an upload session, so whatever has come is kept by rows: the next attempt goes on from there, in this
request, in a later one, or in another process. Two processes at the same blob take turns at one session: who finds it
busy watches how far the other is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Final, Self, cast

from registry.remotes.endpoint import BlobBody, RemoteRepository
from registry.remotes.errors import AnswerInvalid, ConnectionCut, DigestMismatch, RangeRefused, RemoteError, Stalled
from registry.remotes.jobs import Job
from registry.remotes.retry import Retry
from storage.errors import BlobUnknown, DigestInvalid, NameUnknown, UploadBusy, UploadUnknown
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.sessions import newest_session
from storage.store import Store
from storage.uploads import Upload

LEAST_RATE: Final = 1024  # bytes in a second, over a window: a body that crawls would hold its place for ever
PACE_WINDOW_S: Final = 30.0
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
        self._restarts = self._vanished = self._busy = self._seen = 0

    def __call__(self, job: Job[None]) -> None:
        """Until the repository holds the blob. Raises RemoteError, StorageError; what has come by then is kept."""
        retry = Retry(first_s=self._first_pause_s, sleep=job.sleep)
        while not is_held(self._store, self._target, self._blob, self._principal):
            job.check()
            upload = self._session()
            try:
                self._attempt(upload, job, retry)
            except RangeRefused:
                if not upload.offset:
                    raise
                self._restart(upload, may_again=True)
            except RemoteError as error:
                retry.pause(error)
            except UploadBusy as error:
                self._watch(error, job)
            except UploadUnknown:
                self._vanished += 1
                if self._vanished >= _MAX_VANISHED:
                    raise
        job.completed = self._blob.size

    def _attempt(self, upload: Upload, job: Job[None], retry: Retry) -> None:
        size, digest = self._blob.size, self._blob.digest
        retry.reached(upload.offset)
        with Incoming(self._remote, self._blob, upload, job) as incoming:
            upload.append(cast(BinaryIO, incoming))  # it only reads
        retry.reached(upload.offset)
        if upload.offset > size:
            self._restart(upload, may_again=True)
            return
        if upload.offset < size:
            raise ConnectionCut(f"{self._remote.home} ended blob {digest} too soon")
        try:
            upload.commit(digest)
        except DigestInvalid:
            # bytes of an earlier attempt may be to blame: once more, without them
            self._restart(upload, may_again=incoming.start > 0)

    def _restart(self, upload: Upload, *, may_again: bool) -> None:
        """Drop what the session holds. Raises DigestMismatch where that has been tried, or nothing old was in it."""
        self._restarts += 1
        with suppress(UploadUnknown, UploadBusy):
            upload.cancel()
        if not may_again or self._restarts > _MAX_RESTARTS:
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: {self._remote.home} sent other bytes than "
                f"{self._blob.digest}"
            )

    def _session(self) -> Upload:
        """What an earlier attempt left, else a new session; a new one too where another writer stands still."""
        uploads, marker = self._store.uploads, f"pull:{self._blob.digest}"[:64]
        found = newest_session(self._store.database, self._target, marker) if self._busy < _MAX_BUSY else None
        if found is not None:
            with suppress(UploadUnknown):
                return uploads.resume(self._target, found)
        is_only, self._busy = self._busy < _MAX_BUSY, 0  # of those who begin at once, one opens it
        algorithm = self._blob.digest.algorithm
        return uploads.start(
            self._target, principal=self._principal, algorithm=algorithm, opened_with=marker, is_only=is_only
        )

    def _watch(self, error: UploadBusy, job: Job[None]) -> None:
        """Another process fetches the blob: its progress is ours, until it stands still."""
        offset = error.detail.get("offset")
        reached = offset if isinstance(offset, int) else 0
        self._busy = self._busy + 1 if reached <= self._seen else 0
        self._seen = job.completed = reached


def is_held(store: Store, name: RepositoryName, blob: Descriptor, principal: str) -> bool:
    """Whether the repository has the blob; then it stays for this principal's manifest. Raises AnswerInvalid."""
    try:
        held = store.blobs.renew_lease(name, blob.digest, principal=principal)
    except (BlobUnknown, NameUnknown):
        return False
    if held.size != blob.size:
        raise AnswerInvalid(f"the manifest says that {blob.digest} has {blob.size} bytes; it has {held.size}")
    return True


class Incoming:
    """The rest of a blob as the store reads it: whole blocks from where the session ends, never past the blob's size.

    Asked for at the first read, when the session is ours: until then another process may have moved its end.
    """

    def __init__(self, remote: RemoteRepository, blob: Descriptor, upload: Upload, job: Job[None]) -> None:
        self._remote, self._blob, self._upload, self._job = remote, blob, upload, job
        self._body: BlobBody | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._is_open = False
        self._left = self._skip = self.start = 0
        self._rest = b""
        self._broken: RemoteError | None = None
        self._window = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._body is not None:
            self._body.close()

    def _open(self) -> None:
        self.start = self._job.completed = self._upload.offset
        self._left = self._blob.size - self.start
        if self._left > 0:
            self._body = self._remote.open_blob(self._blob.digest, self._blob.size, start=self.start)
            self._pieces = iter(self._body)
            self._skip = self.start - self._body.start  # of a server that knows no ranges, and sends all of it again
        self._window = (time.monotonic(), 0)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, less only at the end; b"" then. Raises RemoteError, after what came before it."""
        if self._broken is not None:
            raise self._broken
        if not self._is_open:
            self._is_open = True
            self._open()
        block = bytearray()
        try:
            while len(block) < size and (piece := self._next()):
                taken = size - len(block)
                block += piece[:taken]
                self._rest = piece[taken:]
        except RemoteError as error:
            if not block:
                raise
            self._broken = error
        self._job.completed += len(block)
        return bytes(block)

    def _next(self) -> bytes:
        if self._rest:
            return self._rest
        while True:
            self._job.check()
            piece = next(self._pieces, b"")
            self._keep_pace(len(piece))
            if not piece or self._skip < len(piece):
                break
            self._skip -= len(piece)
        piece, self._skip = piece[self._skip :], 0
        self._left -= len(piece)
        if self._left < 0:
            raise AnswerInvalid("the registry sends more bytes than the blob has")
        return piece

    def _keep_pace(self, received: int) -> None:
        began, so_far = self._window
        so_far += received
        elapsed = time.monotonic() - began
        if elapsed < PACE_WINDOW_S:
            self._window = (began, so_far)
            return
        if so_far < LEAST_RATE * elapsed:
            raise Stalled(f"the registry sends less than {LEAST_RATE} bytes a second")
        self._window = (time.monotonic(), 0)
