"""The bytes of one writer that are on no way yet: a few by itself, more of them in a block that all writers share."""

from __future__ import annotations

import threading
from typing import BinaryIO, Final

from storage.drivers.objects.blocks import Blocks, Filler
from storage.drivers.objects.seekable import near

_FEW: Final = 32  # this fraction of a block: what small blobs, and uploads that have just begun, need no block for


class Buffer:
    """Room for one block. `add` and `put_before` may wait for it, and raise StorageUnavailable."""

    def __init__(self, blocks: Blocks, filler: Filler) -> None:
        self._blocks, self._filler = blocks, filler
        self._held = bytearray()
        self._is_block = False
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_few(self) -> bool:
        """Whether no block is held."""
        return not self._is_block

    def add(self, data: memoryview) -> None:
        end = self._size + len(data)
        self._make_room(end)
        if self._is_block:
            memoryview(self._held)[self._size : end] = data
        else:
            self._held += data
        self._size = end
        self._blocks.touch(self._filler)

    def put_before(self, source: BinaryIO, size: int) -> None:
        """Read `size` bytes of `source` to where ours begin, and let ours follow."""
        self._make_room(self._size + size)
        if not self._is_block:
            self._held += bytes(size)
        view, at = memoryview(self._held), 0
        view[size : size + self._size] = view[: self._size]
        while at < size and (data := source.read(size - at)):
            view[at : at + len(data)] = data
            at += len(data)
        view.release()
        self._size += size

    def view(self, start: int = 0) -> memoryview:
        """What is held, from `start` on; good until the next change."""
        held = self._held if self._is_block else bytes(self._held)  # which could not grow while it is looked at
        return memoryview(held)[start : self._size]

    def clear(self) -> None:
        """Hold nothing."""
        load = self.unload()
        load.release()

    def unload(self) -> Load:
        """Hold nothing; what was held, for whoever sends it."""
        load = Load(self._blocks if self._is_block else None, self._held, self._size)
        if self._is_block:
            self._blocks.fill_no_more(self._filler)
        self._held, self._is_block, self._size = bytearray(), False, 0
        return load

    def _make_room(self, size: int) -> None:
        if self._is_block or size <= self._blocks.size // _FEW:
            return
        block = self._blocks.take(self._filler)
        block[: self._size] = self._held
        self._held, self._is_block = block, True


class Load:
    """Bytes taken out of a buffer. Whoever is first to `take` it sends it, and gives its block back by `release`."""

    def __init__(self, blocks: Blocks | None, held: bytearray, size: int) -> None:
        self._blocks, self._held, self._size = blocks, held, size
        self._taken = threading.Lock()

    def take(self) -> bool:
        return self._taken.acquire(blocking=False)

    @property
    def view(self) -> memoryview:
        return memoryview(self._held)[: self._size]

    @property
    def body(self) -> bytearray | BinaryIO:
        """For sending: without a copy, where all of the memory is to be sent."""
        return self._held if self._size == len(self._held) else near(self.view)

    def release(self) -> None:
        if self._blocks is not None:
            self._blocks.give(self._held)
