"""The pipe from a request's body into staged bytes: read, write, hash beside it, and remember how far it came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Final, Self

from storage.claims import Claim
from storage.digest import Hasher
from storage.drivers.protocol import StagedWriter

READ_BYTES: Final = 1024 * 1024
SAVE_BYTES: Final = 64 * 1024 * 1024
SAVE_S: Final = 5.0
BOTH_BYTES: Final = 64 * 1024 * 1024  # sha512 costs more than sha256: large sessions get it only when announced
_MAX_PENDING: Final = 8  # blocks read but not hashed yet, of all appends of a process together
_room: Final = threading.BoundedSemaphore(_MAX_PENDING)


class HashThread:
    """Hashes blocks in order, beside the thread that writes them. One short block starts no thread."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._pending: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash")  # starts with the first submit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()  # waits: afterwards the hasher has seen every block

    def update(self, block: bytes) -> None:
        if len(block) < READ_BYTES and not self._pending:
            self._hasher.update(block)
            return
        while not _room.acquire(blocking=False):
            if not self._pending:  # others have taken all of it
                self._hasher.update(block)
                return
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._update, block))

    def _update(self, block: bytes) -> None:
        try:
            self._hasher.update(block)
        finally:
            _room.release()

    def settle(self) -> None:
        """Return when all blocks so far are hashed."""
        while self._pending:
            self._pending.popleft().result()


class Intake:
    """One append: from `offset` on, until the body ends, breaks, or is longer than its limit.

    Every save of the row also writes `marks`: what the session remembers of the chunk that is under way.
    """

    def __init__(
        self,
        claim: Claim,
        writer: StagedWriter,
        hasher: Hasher,
        *,
        offset: int,
        marks: Mapping[str, object],
        size: int = 0,
        wanted: str = "sha256",
    ) -> None:
        """size: of the body, as far as it is known. wanted: the algorithm to keep when there will be many bytes."""
        self._claim = claim
        self._writer = writer
        self._hasher = hasher
        self._marks = marks
        self._wanted = wanted
        if offset + size >= BOTH_BYTES:
            self._hash_less()
        self._checked = offset  # of the last checkpoint that was begun
        self._checked_at = time.monotonic()
        self.offset = offset

    def run(self, stream: BinaryIO, *, limit: int | None) -> None:
        """Append `stream`; it may raise whatever it likes.

        Reads at most one byte past `limit` bytes, so that the caller can tell a body that is too long.
        """
        left = None if limit is None else limit + 1
        checkpoint: Future[None] | None = None
        # The disk works on a checkpoint in the second pool while the next bytes are read, written and hashed.
        with HashThread(self._hasher) as hashing, ThreadPoolExecutor(1, thread_name_prefix="sync") as syncing:
            while block := stream.read(READ_BYTES if left is None else min(READ_BYTES, left)):
                self._claim.keep()
                self._writer.write(block)
                hashing.update(block)
                self.offset += len(block)
                left = None if left is None else left - len(block)
                if self.offset - self._checked >= SAVE_BYTES or time.monotonic() - self._checked_at >= SAVE_S:
                    hashing.settle()
                    if checkpoint is not None:
                        checkpoint.result()  # at most one is under way
                    checkpoint = syncing.submit(self._save, self._progress(), self._writer.mark())
                    self._checked, self._checked_at = self.offset, time.monotonic()
            if checkpoint is not None:
                checkpoint.result()

    def finish(self, **marks: object) -> None:
        """Save what was appended, with these last marks, and release the claim. Call also after `run` raised."""
        self._writer.sync()
        self._claim.release(**self._progress() | marks | {"handle": self._writer.handle})

    def _hash_less(self) -> None:
        """Two digests of one stream take two to three times as long; a second one can be made later, if it must."""
        others = self._hasher.algorithms - {self._wanted}
        if len(others) < len(self._hasher.algorithms):
            for algorithm in others:
                self._hasher.drop(algorithm)

    def leave(self) -> None:
        """Put what was appended into the claimed row as it is in memory; a commit that follows saves it."""
        self._progress()
        self._claim.row.offset = self.offset
        self._claim.row.states = self._hasher.states()

    def _save(self, progress: dict[str, object], mark: int) -> None:
        """Bytes first, then the row that says they are there."""
        self._writer.sync(mark)
        self._claim.save(**progress)

    def _progress(self) -> dict[str, object]:
        if self.offset >= BOTH_BYTES:
            self._hash_less()
        return {"offset": self.offset, "states": self._hasher.states(), **self._marks}
