"""One blob's bytes on their way into a partial file: several ranges at once, hashed in order as they come."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.digest import Digest
from storage.drivers.objects.bucket import Body
from storage.errors import StorageUnavailable
from storage.local_copies.partial import Partial

PIECE_BYTES: Final = 16 * 2**20
CONNECTIONS: Final = 4
_READ_BYTES: Final = 2**20  # what each connection, and the hashing, has in memory
_SYNC_BYTES: Final = 2**30  # else all of a large file would be written out at its end, where it seems to stand still
_MOST_FAILURES: Final = 3  # of one piece, without a byte between them
_PAUSE_S: Final = 0.2

OpenRange = Callable[[int, int], Body]  # start and size


@dataclass(slots=True)
class _Piece:
    """at: where its next byte belongs in the file."""

    number: int
    at: int
    end: int


class Download:
    """Holds some MiB at most, whatever the blob's size. To be closed before the partial file is."""

    def __init__(self, open_range: OpenRange, partial: Partial, size: int, *, stall_s: float, kept: int = 0) -> None:
        """kept: bytes that an earlier attempt left. stall_s: how long nothing may come; 0 or less is any time."""
        self._open_range, self._partial, self._size = open_range, partial, size
        self._stall_s, self._kept = stall_s, kept
        self._next = kept // PIECE_BYTES if kept < size else self._pieces  # the first piece that nobody fetches yet
        self._whole = min(self._next * PIECE_BYTES, size)  # bytes from the start that are all here
        self._ahead: set[int] = set()  # pieces that are here before an earlier one is
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._is_over = threading.Event()
        self._moved_at = time.monotonic()
        self._threads: list[threading.Thread] = []

    def run(self, algorithm: str, progress: Callable[[int], None]) -> Digest:
        """The digest of all bytes, which are in the file then. progress: told how many are.

        Raises StorageUnavailable, StorageFull, KeyUnknown.
        """
        for number in range(min(CONNECTIONS, self._pieces - self._next)):
            thread = threading.Thread(target=self._work, name=f"weights-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)  # one that could not be started is not waited for
        hasher, hashed = hashlib.new(algorithm), 0
        while hashed < self._size:
            ready = self._await_more(hashed)
            while hashed < ready:
                data = self._partial.read_at(hashed, min(_READ_BYTES, ready - hashed))
                hasher.update(data)
                hashed += len(data)
            self._moved_at = time.monotonic()
            self._partial.mark(max(hashed, self._kept))  # who is killed while it hashes again loses nothing
            if hashed % _SYNC_BYTES == 0:
                self._partial.sync()
            progress(hashed)
        return Digest(algorithm, hasher.hexdigest())

    def close(self) -> None:
        """Return when nothing of ours writes any more."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def _pieces(self) -> int:
        return -(-self._size // PIECE_BYTES)

    def _await_more(self, hashed: int) -> int:
        """Wait until more than `hashed` bytes are here; how far to hash now."""
        with self._changed:
            while self._whole <= hashed:
                if self._failure is not None:
                    raise self._failure
                left_s = self._moved_at + self._stall_s - time.monotonic() if self._stall_s > 0 else None
                if left_s is not None and left_s <= 0:
                    raise StorageUnavailable(
                        f"the object store has sent no byte of the weights for {self._stall_s:g} s"
                    )
                self._changed.wait(left_s)
            return min(self._whole, hashed + PIECE_BYTES)

    def _work(self) -> None:
        try:
            while (piece := self._take()) is not None and self._fetch(piece):
                self._arrived(piece.number)
        except BaseException as failure:  # to be raised where it is waited for
            with self._changed:
                self._failure = self._failure or failure
                self._changed.notify_all()
            self._is_over.set()

    def _take(self) -> _Piece | None:
        with self._changed:
            number = self._next
            if number == self._pieces:
                return None
            self._next += 1
        return _Piece(number, number * PIECE_BYTES, min((number + 1) * PIECE_BYTES, self._size))

    def _arrived(self, piece: int) -> None:
        with self._changed:
            self._ahead.add(piece)
            while (first := self._whole // PIECE_BYTES) in self._ahead:
                self._ahead.remove(first)
                self._whole = min((first + 1) * PIECE_BYTES, self._size)
            self._changed.notify_all()

    def _fetch(self, piece: _Piece) -> bool:
        """Whether all of it is here, or nobody wants it any more. An answer that breaks off is asked for again."""
        failures = 0
        while piece.at < piece.end:
            before, failure = piece.at, None
            try:
                self._copy(piece)
            except StorageUnavailable as error:
                failure = error
            failures = failures + 1 if piece.at == before else 0
            if failures > _MOST_FAILURES:
                raise failure or StorageUnavailable("the object store breaks off its answers")
            if self._is_over.wait(_PAUSE_S * failures):
                return False
        return True

    def _copy(self, piece: _Piece) -> None:
        """As much of it as one answer has."""
        body = self._open_range(piece.at, piece.end - piece.at)
        try:
            while piece.at < piece.end and (data := body.read(min(_READ_BYTES, piece.end - piece.at))):
                if self._is_over.is_set():
                    return
                self._partial.write_at(data, piece.at)
                piece.at += len(data)
                self._moved_at = time.monotonic()
        finally:
            body.close()
