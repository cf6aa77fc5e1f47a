"""Bytes as objects of a bucket. What arrives over many requests goes straight to its final name, part by part.

Nothing of it lies on a node: parts are in the multipart upload, the rest and the record of both are objects beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

from storage.drivers.objects.blocks import Blocks
from storage.drivers.objects.bucket import Body, Bucket
from storage.drivers.objects.direct import SignedParts
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.handover import Handovers
from storage.drivers.objects.moving import copy_staged, settle
from storage.drivers.objects.names import OBJECTS, STAGED, Desk, object_name, staged_folder, staged_key
from storage.drivers.objects.parts import BLOCK_BYTES, Staged
from storage.drivers.objects.reader import ObjectReader, PieceReader
from storage.drivers.objects.seekable import MAX_READ
from storage.drivers.objects.writer import ObjectWriter
from storage.drivers.protocol import Fence, StagedWriter, check_key, no_fence
from storage.errors import KeyUnknown, StagedBusy, StorageError, UploadBusy

_SWEEP_PAGE: Final = 500
_FEW_BYTES: Final = 256 * 2**10  # are sent as they are
_BLOCKS: Final = 4  # of a process, however many write: 32 MiB


class ObjectDriver:
    """A `Driver` over one bucket. A handle says which record tells what is staged; see `Handle`."""

    def __init__(self, bucket: Bucket, *, gives_addresses: bool = False) -> None:
        """gives_addresses: whether clients may be sent to the bucket for their downloads."""
        self._bucket = bucket
        self._gives_addresses = gives_addresses
        self._blocks = Blocks(_BLOCKS, BLOCK_BYTES)
        self._handovers = Handovers()

    @property
    def direct(self) -> SignedParts:
        return SignedParts(self._bucket)

    def write(self, key: str, source: BinaryIO) -> int:
        name, data = object_name(check_key(key)), _few(source)
        if len(data) < _FEW_BYTES:
            self._bucket.put(name, data)
            return len(data)
        handle, size = Handle(key).taken(), 0
        writer = ObjectWriter(self._bucket, handle, Staged(), no_fence, self._blocks)
        try:
            try:
                while data:
                    writer.write(data)
                    size += len(data)
                    data = source.read(MAX_READ)
                self._close(writer)
            finally:
                writer.abandon()
            self.publish(writer.handle, size=size)
        except BaseException:
            self._forget_staged(key)
            raise
        return size

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        return cast("BinaryIO", ObjectReader(self._bucket, object_name(check_key(key)), start=start))

    def open_range(self, key: str, start: int, size: int) -> Body:
        """`size` bytes from `start` on, which must lie within. Raises KeyUnknown."""
        return self._bucket.get(object_name(check_key(key)), start=start, size=size)

    def stat(self, key: str) -> int:
        return self._bucket.stat(object_name(check_key(key))).size

    def changed_at(self, key: str) -> float | None:
        return self._bucket.stat(object_name(check_key(key))).modified_at

    def delete(self, key: str) -> None:
        self._bucket.delete(object_name(check_key(key)))

    def keys(self, prefix: str) -> Iterator[str]:
        return (found.name.removeprefix(OBJECTS) for found in self._bucket.list(object_name(prefix)))

    def download_url(self, key: str, *, expires_s: int) -> str | None:
        return self._bucket.url(object_name(check_key(key)), expires_s) if self._gives_addresses else None

    def local_path(self, key: str) -> Path | None:
        self.stat(key)
        return None

    def stage(self, key: str) -> str:
        return str(Handle(check_key(key)))

    @contextmanager
    def append(self, handle: str, *, at: int, fence: Fence = no_fence) -> Iterator[StagedWriter]:
        left = Handle.parse(handle)
        if left.size is not None:
            raise StagedBusy("an attempt to publish the staged bytes may still be at work", handle=handle)
        theirs, mine = Desk(self._bucket, left), left.taken()
        handover = self._handovers.take(left)
        found = handover.save(theirs) if handover is not None else theirs.load()
        staged = found.cut(at)
        staged.begin()
        desk = Desk(self._bucket, mine)
        if staged.is_begun:
            desk.record(staged)
        try:
            fence(str(mine))
        except UploadBusy:  # and nothing else: a row whose writing ended in an error may name what is ours
            desk.drop([], with_record=True)
            raise
        kept = {piece.name for piece in staged.pieces}
        if left.writer is not None:
            theirs.drop((piece for piece in found.pieces if piece.name not in kept), with_record=True)
        writer = ObjectWriter(self._bucket, mine, staged, fence, self._blocks)
        try:
            yield writer
            self._close(writer)
        finally:
            writer.abandon()

    def staged_path(self, handle: str) -> Path | None:
        return None

    def read_staged(self, handle: str, *, fence: Fence = no_fence) -> BinaryIO:
        held = Handle.parse(handle)
        size = held.size
        if size is None:
            desk, handover = Desk(self._bucket, held), self._handovers.take(held)
            staged = handover.staged if handover is not None else desk.load()
            if not staged.parts:
                staged = handover.save(desk) if handover is not None else staged
                if staged.pieces:
                    return cast("BinaryIO", PieceReader(desk.open, staged.tail))
            elif handover is not None:
                self._handovers.leave(held, handover)
            size = handover.size if handover is not None else staged.end
            if size and fence is no_fence:
                raise KeyUnknown("parts cannot be read before they are published", key=held.key)
        if size and fence is not no_fence:  # parts cannot be read before: a publishing that a commit may complete
            self.publish(handle, size=size, fence=fence)
        return self.open(held.key)

    def publish(self, handle: str, *, size: int, fence: Fence = no_fence) -> None:
        held = Handle.parse(handle)
        if held.size is not None and held.size != size:
            raise StagedBusy("an attempt to publish other bytes may still be at work", handle=handle)
        desk, handover = Desk(self._bucket, held), self._handovers.take(held)
        found = handover.staged if handover is not None else desk.load()
        if held.size is not None and self._is_at(held.key, size):
            fence()
        else:
            last = handover.last[: max(0, size - found.end)] if handover is not None else b""
            staged = found.cut(size - len(last))
            fence(str(held.sealed(size)))
            settle(self._bucket, held, staged, last)
        if held.writer is not None:
            desk.drop(found.pieces, with_record=handover is None or handover.has_record)

    def restage(self, handle: str, key: str, *, size: int, keep: Fence) -> str:
        left, new = Handle.parse(handle), Handle(check_key(key)).taken()
        if (handover := self._handovers.take(left)) is not None:
            handover.save(Desk(self._bucket, left))
        try:
            first_free = copy_staged(self._bucket, left, new, size, keep)
        except BaseException:
            with suppress(StorageError):
                self._forget_staged(key)
            raise
        return str(new.reserving(first_free))

    def sweep_staged(self, is_known: Callable[[Collection[str]], Collection[str]], *, older_than_s: float) -> int:
        before, gone = time.time() - older_than_s, 0
        tails = (found for found in self._bucket.list(STAGED) if found.modified_at < before)
        while page := list(islice(tails, _SWEEP_PAGE)):
            known = is_known({staged_key(found.name) for found in page})
            orphans = [found.name for found in page if staged_key(found.name) not in known]
            for name in orphans:
                self._bucket.delete(name)
            gone += len(orphans)
        uploads = (found for found in self._bucket.uploads(OBJECTS) if found.begun_at < before)
        while begun := list(islice(uploads, _SWEEP_PAGE)):
            known = is_known({found.name.removeprefix(OBJECTS) for found in begun})
            left = [found for found in begun if found.name.removeprefix(OBJECTS) not in known]
            for found in left:
                self._bucket.abort(found.name, found.upload)
            gone += len(left)
        return gone

    def discard(self, handle: str) -> None:
        held = Handle.parse(handle)
        if held.writer is None:
            return  # nobody came to write
        self._forget_staged(held.key)
        self._bucket.delete(object_name(held.key))

    def _close(self, writer: ObjectWriter) -> None:
        if (handover := writer.close()) is not None:
            self._handovers.leave(Handle.parse(writer.handle), handover)

    def _forget_staged(self, key: str) -> None:
        self._handovers.drop(key)
        name = object_name(key)
        for begun in self._bucket.uploads(name):
            if begun.name == name:
                self._bucket.abort(name, begun.upload)
        for found in self._bucket.list(staged_folder(key)):
            self._bucket.delete(found.name)

    def _is_at(self, key: str, size: int) -> bool:
        try:
            return self.stat(key) == size
        except KeyUnknown:
            return False


def _few(source: BinaryIO) -> bytes:
    """The first bytes; fewer than _FEW_BYTES are all."""
    few = bytearray()
    while len(few) < _FEW_BYTES and (data := source.read(_FEW_BYTES - len(few))):
        few += data
    return bytes(few)
