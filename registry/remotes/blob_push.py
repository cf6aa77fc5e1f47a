"""One blob to another registry: from wherever its upload session stands to the committed blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import (
    AnswerInvalid,
    DigestMismatch,
    NotFound,
    PartDamaged,
    RangeRefused,
    RedirectRefused,
    RemoteError,
    RequestRefused,
)
from registry.remotes.http import Origin
from registry.remotes.own_bytes import OwnBytes
from registry.remotes.progress import Bar
from registry.remotes.retry import PROGRESS_BYTES, Retry
from registry.remotes.uploads import (
    Notes,
    Part,
    UploadSession,
    cancel_upload,
    complete_upload,
    resume_upload,
    send_part,
    start_upload,
)
from storage.digest import Digest

_MAX_RESTARTS: Final = 2  # sessions that get nowhere, or hold other bytes than ours; once may be a stale one
_MAX_DAMAGED: Final = 3  # times that one part arrives as other bytes
_PROBE_BYTES: Final = 1024 * 1024


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


class BlobPush:
    """Brings `blob` over, whatever it takes within the bounds of `Retry`.

    Another process may push the same blob, and go on with the session that this one noted. Where both write, one is
    refused and asks where the session stands: it follows the other's progress, and takes over when there is none.
    Whoever gets nowhere by that begins a session of its own. The note is read once: a later one is not ours.
    """

    def __init__(
        self, remote: RemoteRepository, notes: Notes, blob: Source, bar: Bar, new_retry: Callable[[], Retry]
    ) -> None:
        self._remote, self._notes, self._blob, self._bar, self._new_retry = remote, notes, blob, bar, new_retry
        self._own = OwnBytes(blob.part, lambda: bar.move(self._reached))
        self._url: str | None = None
        self._is_old = True  # the noted session is another push's
        self._goes_on = False  # with a session that was noted
        self._reached = self._restarts = self._damaged = 0

    def run(self) -> None:
        """Until the registry has the blob. Raises RemoteError; a later push goes on from there."""
        self._url = self._notes.load(self._remote, self._blob.digest)
        retry = self._new_retry()
        while True:
            try:
                self._attempt(retry)
                break
            except PartDamaged:
                self._forget()
                raise
            except (DigestMismatch, NotFound) as error:  # the session is spoilt, or went away under us
                self._begin_anew(error)
            except _Moved as error:
                if retry.is_over(error):
                    self._begin_anew(error)
                    retry = self._new_retry()
                else:
                    retry.pause(error)
            except (AnswerInvalid, RedirectRefused, RequestRefused) as error:
                if not self._goes_on:
                    self._forget()
                    raise
                self._begin_anew(error)  # what another push left may be to blame
            except RemoteError as error:
                retry.pause(error)
        self._forget()

    def _attempt(self, retry: Retry) -> None:
        held = self._remote.blob_size(self._blob.digest)
        if held is not None:
            if held != self._blob.size:
                raise AnswerInvalid(
                    f"{self._remote.home} has blob {self._blob.digest} with {held} bytes, not {self._blob.size}"
                )
            return
        session = self._session()
        if session is not None:
            self._send(session, retry)
            self._commit(session)

    def _session(self) -> UploadSession | None:
        """The session noted earlier, with the registry's offset, or a new one; None if the blob is there already."""
        session = self._resumed()
        self._goes_on = session is not None
        if session is not None and session.offset > self._blob.size:
            cancel_upload(self._remote, session)
            session = None
        if session is None:
            session = start_upload(self._remote, self._blob.digest, mount_from=self._blob.mount_from)
        if session is not None:
            self._note(session)
        return session

    def _resumed(self) -> UploadSession | None:
        """The session noted earlier; None when there is none to go on with. Raises RemoteError."""
        is_old, self._is_old = self._is_old, False
        try:
            return resume_upload(self._remote, self._url) if self._url else None
        except RemoteError as error:
            # The registry has just answered. A note that leads elsewhere, or to a refusal, would fail every later push.
            if not is_old or (error.is_transient and self._url and Origin.of(self._url) == self._remote.home):
                raise
        self._forget()
        return None

    def _send(self, session: UploadSession, retry: Retry) -> None:
        """Part after part; one that arrived damaged is sent again."""
        self._move(session.offset)
        while not self._is_whole(session) or session.offset < self._blob.size:
            is_again = self._damaged > 0
            retry.reached(session.offset)
            self._move(session.offset)
            before = session.offset
            try:
                send_part(self._remote, session, self._part_length(session), self._pieces(session), is_again=is_again)
            except RangeRefused as error:
                if is_again:
                    raise self._spoilt(session) from error
                # Another writer, or an answer that was lost: the next attempt asks where the session stands.
                raise _Moved(str(error)) from error
            self._note(session)
            if session.offset < min(before + PROGRESS_BYTES, self._blob.size):
                # counted: else a registry that keeps a byte of each part would be sent parts without end
                raise _Moved(f"{self._remote.home} takes a part of the upload but keeps hardly any of its bytes")

    def _is_whole(self, session: UploadSession) -> bool:
        """Whether the registry holds our own bytes, as far as it tells; else the session steps back by one part.

        Raises PartDamaged; DigestMismatch when the wrong bytes are not of the last part, or not ours.
        """
        if session.digest is None or session.digest == self._own.digest(session.offset):
            self._damaged = 0
            return True
        self._damaged += 1
        if self._damaged >= _MAX_DAMAGED:
            self._cancel(session)
            raise PartDamaged(
                f"{self._remote.home} received other bytes than were sent, {_MAX_DAMAGED} times in a row; "
                "is something between here and there damaging them?"
            )
        last = self._own.last_part
        if last is None or not last[0] < session.offset <= sum(last):
            raise self._spoilt(session)
        session.offset = last[0]
        return False

    def _part_length(self, session: UploadSession) -> int:
        """Short where another process may be writing, of registries that could tell: who is refused loses little."""
        if self._damaged and self._own.last_part is not None:
            return self._own.last_part[1]  # a part that comes again is as long as it was
        is_probe = session.is_resumed and session.digest is not None
        session.is_resumed = False
        return min(_PROBE_BYTES if is_probe else session.part_bytes, self._blob.size - session.offset)

    def _pieces(self, session: UploadSession) -> Part:
        read = self._blob.part if session.digest is None else self._own.part

        def watched(start: int, length: int) -> Iterator[bytes]:
            for piece in read(start, length):
                yield piece
                start += len(piece)
                self._bar.move(start)

        return watched

    def _commit(self, session: UploadSession) -> None:
        try:
            complete_upload(self._remote, session, self._blob.digest)
        except RequestRefused as error:
            if error.code not in {"DIGEST_INVALID", "SIZE_INVALID"}:
                raise
            raise DigestMismatch(
                f"{self._remote.home} got other bytes than {self._blob.digest}; did the file change?"
            ) from error

    def _spoilt(self, session: UploadSession) -> DigestMismatch:
        self._cancel(session)
        return DigestMismatch(f"{self._remote.home} holds other bytes of {self._blob.digest} than were sent")

    def _begin_anew(self, error: RemoteError) -> None:
        """Leave the session, for later pushes too. Raises `error` where that has been tried."""
        self._restarts += 1
        self._damaged = 0
        self._forget()
        if self._restarts >= _MAX_RESTARTS:
            raise error

    def _cancel(self, session: UploadSession) -> None:
        with suppress(RemoteError):  # the registry forgets it some time
            cancel_upload(self._remote, session)

    def _move(self, position: int) -> None:
        self._reached = position
        self._bar.move(position)

    def _note(self, session: UploadSession) -> None:
        if session.url != self._url:
            self._url = session.url
            self._notes.save(self._remote, self._blob.digest, session.url)

    def _forget(self) -> None:
        self._url = None
        self._notes.forget(self._remote, self._blob.digest)


class _Moved(RemoteError):
    """The session does not stand where we thought; counted like a cut."""

    is_transient = True
