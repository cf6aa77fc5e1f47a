"""Reading objects as files: one that goes on after a cut, and one over many pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from storage.drivers.objects.bucket import Body, Bucket
from storage.drivers.objects.parts import Piece
from storage.drivers.objects.seekable import SeekableReader
from storage.errors import KeyUnknown, StorageUnavailable

_RECONNECTS: Final = 3  # without a byte between them


class ObjectReader(SeekableReader):
    """The bytes of one object from `start` on, streamed. A cut answer is asked for again where it broke off.

    Reading raises StorageUnavailable when the store answers no more.
    """

    def __init__(self, bucket: Bucket, name: str, *, start: int) -> None:
        """Raises KeyUnknown."""
        self._bucket, self._name = bucket, name
        self._body: Body | None = None
        try:
            self._body = bucket.get(name, start=start)
            size = start + self._body.size
        except StorageUnavailable:
            if (size := bucket.stat(name).size) > start:  # else no byte lies there
                raise
        super().__init__(size, start=start)

    def _fetch(self, wanted: int) -> bytes:
        for attempt in range(_RECONNECTS + 1):
            try:
                if self._body is None:
                    self._body = self._bucket.get(self._name, start=self._at)
                    if self._body.size != self.size - self._at:
                        raise StorageUnavailable("the object store answers with other bytes than before")
                if data := self._body.read(wanted):
                    return data
            except StorageUnavailable:
                if attempt == _RECONNECTS:
                    raise
            except KeyUnknown as error:  # it was there: a caller expects no such thing of a reader
                raise StorageUnavailable("the object was deleted while it was read") from error
            self._moved()
        raise StorageUnavailable("the object store breaks off its answers")

    def _moved(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


class PieceReader(SeekableReader):
    """Pieces and then `last`, as one file. Nothing of it is kept in memory but `last`.

    Reading raises StorageUnavailable for an answer that was cut, KeyUnknown for a piece that is gone.
    """

    def __init__(
        self, open_piece: Callable[[Piece, int], Body], pieces: Sequence[Piece], last: bytes | memoryview = b""
    ) -> None:
        """open_piece: the bytes of a piece from an offset within it on."""
        self._last_start = sum(piece.size for piece in pieces)
        super().__init__(self._last_start + len(last))
        self._open_piece, self._pieces, self._last = open_piece, [piece for piece in pieces if piece.size], last
        self._body: Body | None = None

    def _fetch(self, wanted: int) -> bytes:
        inside = self._at - self._last_start
        if inside >= 0:
            return bytes(self._last[inside : inside + wanted])
        piece, inside = self._piece()
        if self._body is None:
            self._body = self._open_piece(piece, inside)
        data = self._body.read(min(wanted, piece.size - inside))
        if not data:
            raise StorageUnavailable("the object store broke off its answer")
        if inside + len(data) == piece.size:
            self._moved()
        return data

    def _piece(self) -> tuple[Piece, int]:
        """The one that we are in, and where in it."""
        start = 0
        for piece in self._pieces:
            if self._at < start + piece.size:
                return piece, self._at - start
            start += piece.size
        raise AssertionError("beyond the pieces")

    def _moved(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
