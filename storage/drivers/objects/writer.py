"""The growing end of a multipart upload. One part is on its way while the next one fills."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final, cast

from storage.drivers.objects.bucket import Bucket
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import Desk, object_name
from storage.drivers.objects.parts import BLOCK_BYTES, Part, Staged, part_size
from storage.drivers.objects.reader import PieceReader
from storage.drivers.protocol import Fence
from storage.errors import StorageError

_RESERVE: Final = 8  # part numbers at a time: each time costs a transaction, and a writer that dies wastes the rest


class ObjectWriter:
    """A `StagedWriter`. `write` and `sync` may be called from two threads at once.

    Holds two blocks at most: the one that fills, and the one on its way.
    """

    def __init__(self, bucket: Bucket, handle: Handle, staged: Staged, fence: Fence) -> None:
        self._bucket, self._handle, self._staged, self._fence = bucket, handle, staged, fence
        self._desk = Desk(bucket, handle)
        self._next = handle.next
        self._part_start = staged.uploaded
        self._buffer = bytearray()
        self._buffer_start = staged.end  # bytes of the part before it are in pieces
        self._is_dirty = False
        self._refusal: StorageError | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="part")
        self._on_its_way: Future[Part] | None = None

    @property
    def handle(self) -> str:
        """What names the staged bytes once the writer is done; numbers that it did not use are free again."""
        return str(self._handle.reserving(self._next))

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view:
                self._is_dirty = True
                room = min(BLOCK_BYTES - len(self._buffer), part_size(self._next) - (self._end - self._part_start))
                self._buffer += view[:room]
                view = view[room:]
                if self._end - self._part_start == part_size(self._next):
                    self._send_part()
                elif len(self._buffer) == BLOCK_BYTES:
                    self._save_piece()
                    self._empty()

    def sync(self) -> None:
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if not self._is_dirty:
                return
            try:
                self._sync()
            except StorageError as refusal:
                self._refusal = refusal
                raise
            self._is_dirty = False

    def close(self) -> None:
        """Make durable what no sync has, for the publishing that follows."""
        try:
            if self._is_dirty:
                self.sync()
                self._fence(self.handle)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Return when nothing of ours is on its way any more."""
        self._pool.shutdown()

    @property
    def _end(self) -> int:
        return self._buffer_start + len(self._buffer)

    def _sync(self) -> None:
        self._arrive()
        self._save_piece()
        self._staged.sync()
        dropped = self._staged.drop_unneeded()
        self._desk.record(self._staged)
        if dropped:
            self._fence()  # who took over may still read them
            self._desk.drop(dropped)

    def _save_piece(self) -> None:
        """Those bytes of the buffer that no piece has."""
        saved = max(self._buffer_start, self._staged.end) - self._buffer_start
        if saved < len(self._buffer):
            self._arrive()  # pieces follow the parts
            self._desk.add(self._staged, bytes(self._buffer[saved:]), self._buffer_start + saved)

    def _send_part(self) -> None:
        self._arrive()
        number, start, size = self._next, self._part_start, self._end - self._part_start
        if number >= self._handle.next:
            reserved = self._handle.reserving(number + _RESERVE)
            self._fence(str(reserved))
            self._handle = reserved
        if self._staged.upload is None:
            self._staged.upload = self._bucket.begin(object_name(self._handle.key))
        before = [piece for piece in self._staged.tail if piece.start < self._buffer_start]
        body: bytes | bytearray | BinaryIO = self._buffer
        if size > BLOCK_BYTES:
            body = cast("BinaryIO", PieceReader(self._desk.read, before, bytes(self._buffer)))
        elif before:
            body = b"".join((*map(self._desk.read, before), self._buffer))
        self._next += 1
        self._part_start = self._end
        self._empty()
        self._on_its_way = self._pool.submit(self._send, self._staged.upload, number, body, start, size)

    def _send(self, upload: str, number: int, body: bytes | bytearray | BinaryIO, start: int, size: int) -> Part:
        etag = self._bucket.put_part(object_name(self._handle.key), upload, number, body, size)
        return Part(number, start, size, etag)

    def _arrive(self) -> None:
        """Wait for the part that is on its way. What it raises, it raises each time: nothing may follow a gap."""
        if self._on_its_way is not None:
            self._staged.parts.append(self._on_its_way.result())
            self._on_its_way = None

    def _empty(self) -> None:
        self._buffer_start = self._end
        self._buffer = bytearray()
