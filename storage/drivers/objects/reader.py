"""Reading objects as files: one that goes on after a cut, and one over many pieces."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from storage.drivers.objects.bucket import Body, Bucket
from storage.drivers.objects.parts import Piece
from storage.errors import KeyUnknown, StorageUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_READ: Final = 2**20
_RECONNECTS: Final = 3  # without a byte between them


class ObjectReader(io.RawIOBase):
    """The bytes of one object from `start` on, streamed. A cut answer is asked for again where it broke off."""

    def __init__(self, bucket: Bucket, name: str, *, start: int) -> None:
        """Raises KeyUnknown."""
        self._bucket, self._name, self._at = bucket, name, start
        self._body: Body | None = None
        self._end = bucket.stat(name).size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """A step elsewhere begins a new answer with the next read."""
        at = max(0, _base(whence, self._at, self._end) + offset)
        if at != self._at:
            self._drop_answer()
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Raises StorageUnavailable when the store answers no more."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._end - self._at, _MAX_READ)
        data = self._read(wanted) if wanted > 0 else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_MAX_READ) or b"", b""))

    def close(self) -> None:
        if not self.closed:
            self._drop_answer()
        super().close()

    def _read(self, wanted: int) -> bytes:
        for attempt in range(_RECONNECTS + 1):
            try:
                if self._body is None:
                    self._body = self._bucket.get(self._name, start=self._at)
                if data := self._body.read(wanted):
                    return data
            except StorageUnavailable:
                if attempt == _RECONNECTS:
                    raise
            except KeyUnknown as error:  # it was there: a caller expects no such thing of a reader
                raise StorageUnavailable("the object was deleted while it was read") from error
            self._drop_answer()
        raise StorageUnavailable("the object store breaks off its answers")

    def _drop_answer(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


class PieceReader(io.RawIOBase):
    """Pieces and then `last`, as one seekable file of which one piece is in memory."""

    def __init__(self, read: Callable[[Piece], bytes], pieces: Sequence[Piece], last: bytes = b"") -> None:
        """read: the bytes of a piece."""
        self._read_piece, self._pieces, self._last = read, pieces, last
        self._sizes = [*(piece.size for piece in pieces), len(last)]
        self._at, self._held = 0, (-1, b"")
        self.size = sum(self._sizes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, _base(whence, self._at, self.size) + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        start = 0
        for index, size in enumerate(self._sizes):
            if self._at < start + size:
                inside = self._at - start
                data = self._piece(index)[inside : inside + len(view)]
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            start += size
        return 0

    def _piece(self, index: int) -> bytes:
        if index == len(self._pieces):
            return self._last
        if self._held[0] != index:
            self._held = (index, self._read_piece(self._pieces[index]))
        return self._held[1]


def _base(whence: int, at: int, end: int) -> int:
    return {io.SEEK_SET: 0, io.SEEK_CUR: at, io.SEEK_END: end}[whence]
