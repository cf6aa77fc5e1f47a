"""Reading a blob while it arrives: what is on the disk, then what comes, and the end only once all is verified."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import BinaryIO, Final

from registry.remotes.errors import ConnectionCut
from registry.remotes.fetch import marker_of
from registry.remotes.jobs import Job
from storage.errors import KeyUnknown
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.sessions import staged_handle
from storage.store import Store

_LOOK_S: Final = 0.01  # a reader sees new bytes after so long
_GONE_S: Final = 0.2  # ... and that its client has left
_FIRST_S: Final = 0.02  # between two looks for where they are
_OLD_S: Final = 2.0
_COMPARE_BYTES: Final = 1024 * 1024
_AGAIN_S: Final = 0.5  # without new bytes: they may be going somewhere else by now


class ReaderLeft(ConnectionResetError):
    """Nobody reads any more."""


class OtherBytes(ConnectionCut):
    """What the reader was given is not what the blob turned out to be."""


class Arrival:
    """A blob that `job` brings into the repository, as a file to read; for one thread.

    The bytes on the way are not verified yet, so the last one is given only when the whole blob has been: a reader who
    knows how long it is never takes a wrong one for complete.
    """

    def __init__(
        self, store: Store, name: RepositoryName, blob: Descriptor, job: Job[None], is_gone: Callable[[], bool]
    ) -> None:
        self._store, self._name, self._blob, self._job, self._is_gone = store, name, blob, job, is_gone
        self._marker = marker_of(blob.digest)
        self._at = self._from = 0
        self._file: BinaryIO | None = None
        self._handle: str | None = None
        self._is_whole = False
        self._located_at = self._asked_at = float("-inf")

    def wait_for_any(self) -> None:
        """Return when something comes. Raises what the job does where nothing will.

        What came in an earlier attempt counts after a while: by then the upstream would have refused.
        """
        before, began = self._here(), time.monotonic()
        while not self._is_settled() and self._job.completed <= before and self._here() <= before:
            if before and time.monotonic() - began > _OLD_S:
                return
            self._pause()

    def seek(self, position: int) -> None:
        """Read on from there."""
        self._at = self._from = position

    def read(self, size: int) -> bytes:
        """Some of the next `size` bytes, b"" at the end of the blob; waits until there are any.

        Raises ReaderLeft, OtherBytes, and what the job raises when it fails.
        """
        if size <= 0 or self._at >= self._blob.size:
            return b""
        while True:
            here = self._blob.size if self._is_settled() else min(self._here(), self._blob.size - 1)
            if here > self._at:
                piece = self._take(min(size, here - self._at))
                if piece:
                    self._at += len(piece)
                    return piece
            self._pause()

    @property
    def is_whole(self) -> bool:
        """Whether all that is still to be read is here, and verified."""
        return self._is_whole

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _is_settled(self) -> bool:
        """Whether the blob is the repository's. Raises what the job raised."""
        if not self._is_whole and self._job.has_ended:
            self._job.result()
            self._turn_to(self._store.blobs.open(self._name, self._blob.digest))
            self._is_whole = True
        return self._is_whole

    def _here(self) -> int:
        """How many bytes of the session there are to read, whoever writes them."""
        if self._file is None and time.monotonic() - self._located_at > _FIRST_S:
            self._locate()
        here = os.fstat(self._file.fileno()).st_size if self._file is not None else 0
        if here < self._at and self._from < self._at:
            raise OtherBytes("the upstream is asked again for what was given already")
        return here

    def _take(self, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(self._at)
        return self._file.read(size)

    def _pause(self) -> None:
        self._job.wait(_LOOK_S)
        now = time.monotonic()
        if now - self._asked_at > _GONE_S:
            self._asked_at = now
            if self._is_gone():
                raise ReaderLeft(errno.ECONNRESET, "the client has left")
        if now - self._located_at > _AGAIN_S and not self._job.has_ended:
            self._locate()

    def _locate(self) -> None:
        """Open what the session writes to; a writer that took over, or began anew, may write elsewhere."""
        self._located_at = time.monotonic()
        handle = staged_handle(self._store.database, self._name, self._marker)
        if handle is None or handle == self._handle or self._store.driver.staged_path(handle) is None:
            return
        try:
            file = self._store.driver.read_staged(handle)
        except KeyUnknown:  # no byte has come yet
            return
        self._turn_to(file)
        self._handle = handle

    def _turn_to(self, file: BinaryIO) -> None:
        """Read on there, if what was given is what stands there: the bytes before may have been wrong ones."""
        before, self._file = self._file, file
        if before is not None:
            with before:
                if not _is_same(before, file) and not self._has_given(before, file):
                    raise OtherBytes("what was given is not what came in the end")

    def _has_given(self, before: BinaryIO, now: BinaryIO) -> bool:
        at = self._from
        while at < self._at:
            before.seek(at)
            piece = before.read(min(_COMPARE_BYTES, self._at - at))
            now.seek(at)
            if not piece or now.read(len(piece)) != piece:
                return False
            at += len(piece)
        return True


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    """Whether they are one file, by whatever names."""
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except OSError:  # a driver's own reader
        return False
