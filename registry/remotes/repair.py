"""A blob that came whole and is not what its digest says: of its bytes only the wrong ones are fetched again.

Nothing here is trusted. Each chunk has the digest that the registry's sums give it, or is not taken; and the blob that
they make is committed by its own digest, as any other.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final, cast

from registry.remotes.chunk_sums import Chunk, chunks_of
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import DigestMismatch, RemoteError
from registry.remotes.incoming import LOOK_S
from registry.remotes.jobs import Job
from registry.remotes.parts import Parts
from registry.remotes.retry import Retry
from storage.errors import DigestInvalid, StorageFull, UploadBusy, UploadUnknown
from storage.manifest import Descriptor
from storage.upload import Upload

_SUMS_TRIES: Final = 4
_CHUNK_TRIES: Final = 3
_TURN_S: Final = 600.0
_ONE: Final = threading.Lock()  # of a process at once: the list of chunks and a chunk twice are a hundred megabytes


@contextmanager
def repair_turn(job: Job[None], *, patience_s: float = _TURN_S) -> Iterator[bool]:
    """Wait until no other blob of this process is being repaired; False where that takes too long.

    Raises Cancelled.
    """
    deadline = time.monotonic() + patience_s
    while not (is_ours := _ONE.acquire(timeout=LOOK_S)) and time.monotonic() < deadline:
        job.check()
    try:
        yield is_ours
    finally:
        if is_ours:
            _ONE.release()


class Repair:
    """Makes of the staged bytes of one session, by the registry's sums, those of another one."""

    def __init__(self, remote: RemoteRepository, blob: Descriptor, job: Job[None], *, first_pause_s: float) -> None:
        self._remote, self._blob, self._job, self._first_pause_s = remote, blob, job, first_pause_s
        self._wrong = 0

    def chunks(self) -> list[Chunk]:
        """What the registry says of the blob; nothing where it does not, or nothing that can be used."""
        retry = Retry(first_s=self._first_pause_s, sleep=self._job.sleep, patience=_SUMS_TRIES)
        while True:
            try:
                return chunks_of(self._remote, self._blob)
            except RemoteError as error:
                self._job.check()
                try:
                    retry.pause(error)
                except RemoteError:
                    self._job.check()
                    return []

    def run(self, chunks: list[Chunk], staged: BinaryIO, new: Upload) -> bool:
        """Fill and commit the new session; False where that is no way to the blob. Unless committed, it is gone then.

        Raises DigestMismatch where the registry sends other bytes than its own sums say, RemoteError, UploadBusy.
        """
        is_made = False
        try:
            new.append(cast(BinaryIO, _Blocks(self._right(chunks, staged))))
            if self._wrong:  # else they are sums of the very bytes that are not the blob
                new.commit(self._blob.digest)
                is_made = True
        except (DigestInvalid, StorageFull):
            return False
        finally:
            if not is_made:
                with suppress(UploadUnknown, UploadBusy):
                    new.cancel()
        return is_made

    def _right(self, chunks: list[Chunk], staged: BinaryIO) -> Iterator[bytes]:
        """The bytes of each chunk, once they are what its sum says. Raises RemoteError."""
        for chunk in chunks:
            self._job.check()
            self._job.completed = chunk.start
            data = _read(staged, chunk.size)
            if not _is_right(data, chunk):
                self._wrong += 1
                data = self._fetched(chunk)
            yield data

    def _fetched(self, chunk: Chunk) -> bytes:
        for _ in range(_CHUNK_TRIES):
            data = bytearray()
            with Parts(self._remote, self._blob, chunk.start, chunk.end, first_pause_s=self._first_pause_s) as parts:
                while len(data) < chunk.size:
                    self._job.check()
                    data += parts.take(chunk.size - len(data), LOOK_S)
            if _is_right(data, chunk):
                return bytes(data)
        raise DigestMismatch(
            f"digest mismatch, file must be downloaded again: {self._remote.home} sends other bytes of "
            f"{self._blob.digest} than its own sums say"
        )


class _Blocks:
    """Pieces as a stream to read from. It only reads, and no more than the store asks for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._piece, self._at = pieces, b"", 0

    def read(self, size: int) -> bytes:
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        block = self._piece[self._at : self._at + size]
        self._at += len(block)
        return block


def _is_right(data: bytes | bytearray, chunk: Chunk) -> bool:
    return len(data) == chunk.size and hashlib.new(chunk.digest.algorithm, data).hexdigest() == chunk.digest.encoded


def _read(staged: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; fewer where there are no more. A raw file may give less at a time."""
    data = bytearray()
    while len(data) < size and (piece := staged.read(size - len(data))):
        data += piece
    return bytes(data)
