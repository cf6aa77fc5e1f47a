"""Push a model: every blob that the registry lacks, then the manifest that makes them a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import (
    AnswerInvalid,
    DigestMismatch,
    NotFound,
    RangeRefused,
    RemoteError,
    RequestRefused,
)
from registry.remotes.package import Package
from registry.remotes.progress import Bar, Progress
from registry.remotes.retry import Retry
from registry.remotes.uploads import (
    Notes,
    UploadSession,
    cancel_upload,
    complete_upload,
    resume_upload,
    send_part,
    start_upload,
)
from storage.digest import Digest
from storage.reference import Tag

_MAX_RESTARTS = 2  # sessions that end in other bytes than ours; once may be a stale session, twice is not


class Source(Protocol):
    """Bytes to push, wherever they lie."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    @property
    def mount_from(self) -> str:
        """The repository there that may have the blob already, "" for none that we know."""

    def part(self, start: int, length: int) -> Iterator[bytes]:
        """Those bytes, in pieces. Raises LocalFileUnfit when they cannot be read."""


class Push:
    """One push to `remote`, taken up again after cuts and, through `notes`, after the end of this process."""

    def __init__(
        self,
        remote: RemoteRepository,
        notes: Notes,
        progress: Progress,
        *,
        first_pause_s: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._remote = remote
        self._notes = notes
        self._progress = progress
        self._first_pause_s = first_pause_s

    def push(self, package: Package, tag: Tag) -> None:
        """Raises RemoteError; a later push goes on where this one stopped."""
        for blob in (*package.layers, package.config):
            self.push_blob(blob)
        self.push_manifest(tag, package.manifest, package.media_type)

    def push_manifest(self, tag: Tag, raw: bytes, media_type: str) -> None:
        """The last step: what makes the blobs a model."""
        retry = self._retry()
        while True:
            try:
                self._remote.put_manifest(tag, raw, media_type)
                return
            except RemoteError as error:
                retry.pause(error)

    def push_blob(self, blob: Source) -> None:
        """Bring one blob over, whatever it takes within the bounds of `Retry`."""
        bar = self._progress.bar(f"pushing {blob.digest.encoded[:12]}", blob.size)
        retry, restarts = self._retry(), 0
        try:
            while True:
                try:
                    self._attempt(blob, bar, retry)
                    self._notes.forget(self._remote, blob.digest)
                    bar.move(blob.size)
                    return
                except DigestMismatch:
                    restarts += 1
                    if restarts >= _MAX_RESTARTS:
                        raise
                except NotFound:  # the session went away under us; if not, the next attempt says so too
                    self._notes.forget(self._remote, blob.digest)
                    restarts += 1
                    if restarts >= _MAX_RESTARTS:
                        raise
                except RemoteError as error:
                    retry.pause(error)
        finally:
            bar.close()

    def _attempt(self, blob: Source, bar: Bar, retry: Retry) -> None:
        """From wherever the registry stands to the committed blob."""
        held = self._remote.blob_size(blob.digest)
        if held is not None:
            if held != blob.size:
                raise AnswerInvalid(f"{self._remote.home} has blob {blob.digest} with {held} bytes, not {blob.size}")
            return
        session = self._session(blob)
        if session is None:
            return
        self._send(session, blob, bar, retry)
        try:
            complete_upload(self._remote, session, blob.digest)
        except RequestRefused as error:
            if error.code not in {"DIGEST_INVALID", "SIZE_INVALID"}:
                raise
            self._notes.forget(self._remote, blob.digest)
            raise DigestMismatch(
                f"{self._remote.home} got other bytes than {blob.digest}; did the file change?"
            ) from error

    def _session(self, blob: Source) -> UploadSession | None:
        """The session noted earlier, with the registry's offset, or a new one; None if the blob is there already."""
        noted = self._notes.load(self._remote, blob.digest)
        session = resume_upload(self._remote, noted) if noted else None
        if session is not None and session.offset > blob.size:
            cancel_upload(self._remote, session)
            session = None
        if session is None:
            session = start_upload(self._remote, blob.digest, mount_from=blob.mount_from)
        if session is not None:
            self._notes.save(self._remote, blob.digest, session.url)
        return session

    def _send(self, session: UploadSession, blob: Source, bar: Bar, retry: Retry) -> None:
        def watched(start: int, length: int) -> Iterator[bytes]:
            for piece in blob.part(start, length):
                yield piece
                start += len(piece)
                bar.move(start)

        while session.offset < blob.size:
            retry.reached(session.offset)
            bar.move(session.offset)
            before = session.offset
            try:
                send_part(self._remote, session, min(session.part_bytes, blob.size - before), watched)
            except RangeRefused as error:
                # Another writer, or an answer that was lost: the next attempt asks where the session stands.
                raise _Moved(str(error)) from error
            if session.offset <= before:
                raise AnswerInvalid(f"{self._remote.home} takes a part of the upload but keeps none of its bytes")
            self._notes.save(self._remote, blob.digest, session.url)

    def _retry(self) -> Retry:
        return Retry(first_s=self._first_pause_s, sleep=self._sleep, tell=self._progress.say)


class _Moved(RemoteError):
    """The session does not stand where we thought; counted like a cut."""

    is_transient = True
