"""The growing end of a multipart upload. Some parts are on their way while the next one fills."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from storage.drivers.objects.buffer import Buffer, Load
from storage.drivers.objects.handover import Handover
from storage.drivers.objects.names import Desk, object_name
from storage.drivers.objects.parts import BLOCK_BYTES, Part, Staged, part_size
from storage.drivers.objects.reader import PieceReader
from storage.drivers.objects.seekable import near
from storage.errors import StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.drivers.objects.blocks import Blocks
    from storage.drivers.objects.bucket import Bucket
    from storage.drivers.objects.handle import Handle
    from storage.drivers.objects.parts import Piece
    from storage.drivers.protocol import Fence

_RESERVE: Final = 16  # part numbers at a time: each time costs a transaction, and a writer that dies wastes the rest
_ON_THEIR_WAY: Final = 3  # parts of one writer; a store may take its time for each
_BROKEN: Final = "the writing of the upload broke off; go on from where it stands"


class ObjectWriter:
    """A `StagedWriter`. `write` and `sync` may be called from two threads at once.

    Its bytes lie in blocks of memory that all writers share; see `Blocks`, for which it is a `Filler`.
    """

    def __init__(self, bucket: Bucket, handle: Handle, staged: Staged, fence: Fence, blocks: Blocks) -> None:
        self._bucket, self._handle, self._staged, self._fence = bucket, handle, staged, fence
        self._desk = Desk(bucket, handle)
        self._next = handle.next
        self._part_start = staged.uploaded
        self._buffer = Buffer(blocks, self)
        self._buffer_start = staged.end  # bytes of the part before it are in pieces
        self._has_record = staged.is_begun
        self._is_dirty = False
        self._refusal: StorageError | None = None
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._pool = ThreadPoolExecutor(_ON_THEIR_WAY, thread_name_prefix="part")
        self._on_their_way: deque[Future[Part]] = deque()

    @property
    def handle(self) -> str:
        """What names the staged bytes once the writer is done; numbers that it did not use are free again."""
        return str(self._handle.reserving(self._next))

    def write(self, data: bytes) -> None:
        with self._working():
            view = memoryview(data)
            while view:
                self._is_dirty = True
                room = min(BLOCK_BYTES - len(self._buffer), part_size(self._next) - (self._end - self._part_start))
                self._buffer.add(view[:room])
                view = view[room:]
                if self._end - self._part_start == part_size(self._next):
                    self._send_part()
                elif len(self._buffer) == BLOCK_BYTES:
                    self._arrive()
                    self._save_piece()
                    self._empty()

    def mark(self) -> int:
        """Saves what the part under way has so far: once more is written, the part may go, and could not be undone."""
        with self._working():
            self._save_piece()
            return self._end

    def sync(self, mark: int | None = None) -> None:
        """Writing may go on meanwhile: only what was written before is waited for."""
        with self._syncing:
            with self._working():
                if not self._is_dirty:
                    return
                if mark is None:
                    self._save_piece()
                end, before = self._end if mark is None else mark, list(self._on_their_way)
                self._is_dirty = end < self._end
            wait(before)
            with self._working():
                self._arrive(but=len(self._on_their_way))
                self._staged.sync(end)
                dropped, record = self._staged.drop_unneeded(), self._staged.to_json()
            with self._working(locked=False):
                self._desk.put_record(record)
                self._has_record = True
                if dropped:
                    self._fence()  # who took over may still read them
                    self._desk.drop(dropped)

    def give_way(self) -> bool:
        """Of a block that somebody else needs; what it holds is saved, the rest of it can go on later."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._buffer.is_few:  # sent since we were asked
                return False
            self._save_piece()
            self._empty()
        except Exception as error:  # ours, and none of who asks
            self._refusal = error if isinstance(error, StorageError) else StorageUnavailable(_BROKEN)
            self._buffer.clear()
        finally:
            self._lock.release()
        return True

    def close(self) -> Handover | None:
        """For the publishing that follows, where something was written that no sync has made durable: send all of it.

        But for a few bytes, which are handed over, as is what no record tells.
        """
        try:
            if not self._is_dirty and self._refusal is None:
                return None
            with self._working():
                if not self._buffer.is_few:
                    self._send_part()
                self._arrive()
                unsaved = max(self._buffer_start, self._staged.end) - self._buffer_start
                handover = Handover(self._staged, bytes(self._buffer.view(unsaved)), self._has_record)
            self._fence(self.handle)
            return handover
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Return when nothing of ours is on its way any more."""
        self._pool.shutdown()
        with self._lock:
            self._buffer.clear()

    @property
    def _end(self) -> int:
        return self._buffer_start + len(self._buffer)

    @contextmanager
    def _working(self, *, locked: bool = True) -> Iterator[None]:
        """What is refused once is refused for good: nothing may follow a gap."""
        if locked:
            self._lock.acquire()
        try:
            if self._refusal is not None:
                raise self._refusal
            yield
        except StorageError as refusal:
            self._refusal = refusal
            raise
        except BaseException:
            self._refusal = StorageUnavailable(_BROKEN)
            raise
        finally:
            if locked:
                self._lock.release()

    def _save_piece(self) -> None:
        """Those bytes of the buffer that no piece has."""
        start = max(self._buffer_start, self._staged.end)
        if start < self._end:
            view = self._buffer.view(start - self._buffer_start)
            self._desk.add(self._staged, near(view), start, len(view))

    def _send_part(self) -> None:
        self._arrive(but=_ON_THEIR_WAY - 1)
        number, start, size = self._next, self._part_start, self._end - self._part_start
        if number >= self._handle.next:
            reserved = self._handle.reserving(number + _RESERVE)
            self._fence(str(reserved))
            self._handle = reserved
        if self._staged.upload is None:
            self._staged.upload = self._bucket.begin(object_name(self._handle.key))
        before = [piece for piece in self._staged.pieces if start <= piece.start < self._buffer_start]
        if before and size <= BLOCK_BYTES:
            pieces = PieceReader(self._desk.open, before)
            self._buffer.put_before(cast("BinaryIO", pieces), pieces.size)
            before = []
        self._next += 1
        self._part_start = self._buffer_start = start + size
        load, part = self._buffer.unload(), Part(number, start, size, etag="")
        try:
            self._on_their_way.append(self._pool.submit(self._send, self._staged.upload, part, before, load))
        except RuntimeError:  # no thread could be started; another one may have taken it from the queue all the same
            if load.take():
                load.release()
            raise

    def _send(self, upload: str, part: Part, before: list[Piece], load: Load) -> Part:
        if not load.take():
            raise StorageUnavailable(_BROKEN)
        try:
            body = cast("BinaryIO", PieceReader(self._desk.open, before, load.view)) if before else load.body
            etag = self._bucket.put_part(object_name(self._handle.key), upload, part.number, body, part.size)
        finally:
            load.release()
        return replace(part, etag=etag)

    def _arrive(self, *, but: int = 0) -> None:
        """Wait for the parts that are on their way, all but so many; and take in whatever else has arrived."""
        coming = self._on_their_way
        while len(coming) > but or (coming and coming[0].done()):
            self._staged.parts.append(coming[0].result())
            coming.popleft()

    def _empty(self) -> None:
        self._buffer_start = self._end
        self._buffer.clear()
