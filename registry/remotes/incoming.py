"""The rest of a blob as the store reads it: from where its session ends, never past the blob's size."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final, Self

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import RemoteError
from registry.remotes.jobs import Job
from registry.remotes.parts import Parts
from storage.manifest import Descriptor
from storage.upload import Upload

BLOCK_S: Final = (
    0.05  # after its first byte a block waits no longer for more: readers of the staged bytes follow closely
)
IDLE_S: Final = 2.0  # without a byte, what has come is made durable
LOOK_S: Final = 0.25  # at whether the job was given up


class Incoming:
    """A stream for `Upload.append`, good for one append after another. Use as a context manager.

    Asked for at the first read, when the session is ours: until then another process may have moved its end. A read
    gives b"" at the end, and where nothing comes for a while: so that the session is saved, and is free meanwhile.
    start, position: of the first byte, and of the next one.
    """

    def __init__(
        self,
        remote: RemoteRepository,
        blob: Descriptor,
        upload: Upload,
        job: Job[None],
        *,
        first_pause_s: float = 0.5,
    ) -> None:
        self._remote, self._blob, self._upload, self._job = remote, blob, upload, job
        self._first_pause_s = first_pause_s
        self._parts: Parts | None = None
        self._is_unsaved = False
        self.start = self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parts is not None:
            self._parts.__exit__()

    @property
    def is_astray(self) -> bool:
        """Whether another writer has moved the session's end meanwhile."""
        return self._parts is not None and self._upload.offset != self.position

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer where they come slowly. Raises RemoteError, after what came before it."""
        if self._parts is None:
            self._open()
        elif not self._is_unsaved and self.is_astray:
            return b""
        self._job.completed = self.position  # what was given before has been written
        size = min(size, self._blob.size - self.position)
        block = self._block(size) if size > 0 else b""
        self.position += len(block)
        self._is_unsaved = bool(block)
        return block

    def _open(self) -> None:
        self.start = self.position = self._upload.offset
        if self.start < self._blob.size:
            parts = Parts(self._remote, self._blob, self.start, self._blob.size, first_pause_s=self._first_pause_s)
            self._parts = parts.__enter__()

    def _block(self, size: int) -> bytes:
        """The first piece at once, a later block soon after its first byte; b"" where none comes for long."""
        assert self._parts is not None
        pieces = [self._awaited(self._parts, size)]
        left = size - len(pieces[0])
        until = time.monotonic() + (BLOCK_S if self.position > self.start else 0.0)
        with suppress(RemoteError):  # it comes again with the next read, after what came before it
            while pieces[0] and left and (wait_s := until - time.monotonic()) > 0:
                pieces.append(self._parts.take(left, wait_s))
                left -= len(pieces[-1])
        return b"".join(pieces)

    def _awaited(self, parts: Parts, size: int) -> bytes:
        until = time.monotonic() + IDLE_S
        while True:
            self._job.check()
            if piece := parts.take(size, LOOK_S):
                return piece
            if self._is_unsaved and time.monotonic() >= until:
                return b""
