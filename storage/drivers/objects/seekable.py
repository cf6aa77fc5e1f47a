"""What all our readers have in common, and the one over memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_READ: Final = 2**20


class SeekableReader(io.RawIOBase):
    """A file of `size` bytes, of which `_fetch` gives the next. `read` makes no copy of what that gave."""

    def __init__(self, size: int, *, start: int = 0) -> None:
        self.size, self._at = size, start

    def _fetch(self, wanted: int) -> bytes:
        """Up to `wanted` bytes from `_at` on, at least one: that many are there."""
        raise NotImplementedError

    def _moved(self) -> None:
        """`_at` is about to be elsewhere, or the file closed."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence] + offset)
        if at != self._at:
            self._moved()
        self._at = at
        return at

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        wanted = min(size, self.size - self._at, MAX_READ)
        data = self._fetch(wanted) if wanted > 0 else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(MAX_READ), b""))

    def close(self) -> None:
        if not self.closed:
            self._moved()
        super().close()


class ViewReader(SeekableReader):
    """Memory as a file, without a copy of the whole."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(len(view))
        self._view = view

    def _fetch(self, wanted: int) -> bytes:
        return bytes(self._view[self._at : self._at + wanted])


def near(data: bytes | memoryview) -> BinaryIO:
    """Memory as a seekable file."""
    return cast("BinaryIO", ViewReader(memoryview(data)))
