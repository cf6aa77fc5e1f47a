"""From staged to published, and from one key to another."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Final, cast

from storage.drivers.objects.bucket import Body, Bucket
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import Desk, object_name
from storage.drivers.objects.parts import BLOCK_BYTES, Part, Piece, Staged, part_size
from storage.drivers.objects.reader import PieceReader
from storage.drivers.objects.seekable import near
from storage.drivers.protocol import Fence
from storage.errors import KeyUnknown, StorageUnavailable

_SEEN_S: Final = 60.0
_POLL_S: Final = 0.2


def settle(bucket: Bucket, handle: Handle, staged: Staged, last: bytes = b"") -> None:
    """Make an object of everything that is staged, and `last` after it; again is harmless. Raises KeyUnknown."""
    name, size = object_name(handle.key), staged.end + len(last)
    tail = PieceReader(Desk(bucket, handle).open, staged.tail, last)
    if size <= BLOCK_BYTES and not staged.parts:
        bucket.put(name, cast("BinaryIO", tail) if staged.tail else last)
        if staged.upload is not None:
            bucket.abort(name, staged.upload)
        return
    upload = staged.upload if staged.upload is not None else bucket.begin(name)
    parts = [(part.number, part.etag) for part in staged.parts]
    try:
        if tail.size:
            body = cast("BinaryIO", tail) if staged.tail else near(last)
            parts.append((handle.next, bucket.put_part(name, upload, handle.next, body, tail.size)))
        bucket.complete(name, upload, parts)
    except KeyUnknown:  # an attempt before this one came through, and its answer was lost
        if bucket.stat(name).size != size:
            raise
    _wait_for(bucket, name, size)


def _wait_for(bucket: Bucket, name: str, size: int) -> None:
    """A store that is asked again may say that all is done while it is still at work for who asked first."""
    deadline = time.monotonic() + _SEEN_S
    while not _is_seen(bucket, name, size):
        if time.monotonic() > deadline:
            raise StorageUnavailable("the object store does not show what it has completed")
        time.sleep(_POLL_S)


def _is_seen(bucket: Bucket, name: str, size: int) -> bool:
    try:
        return bucket.stat(name).size == size
    except KeyUnknown:
        return False


def copy_staged(bucket: Bucket, left: Handle, new: Handle, size: int, keep: Fence) -> int:
    """Stage the first `size` staged bytes of one handle anew; the first part number that is free then.

    Parts cannot be read, so they are made an object first, of which the store copies ranges itself. Raises KeyUnknown.
    """
    source, desk = Desk(bucket, left), Desk(bucket, new)
    try:
        is_published = bucket.stat(object_name(left.key)).size >= size
    except KeyUnknown:
        is_published = False
    found = Staged() if is_published else source.load().cut(size)
    if found.parts:
        settle(bucket, left, found)
    staged = Staged()
    if found.parts or is_published:
        _copy_parts(bucket, object_name(left.key), object_name(new.key), staged, size=size, keep=keep)
        while staged.end < size:
            keep()
            rest = Piece(object_name(left.key), staged.end, min(BLOCK_BYTES, size - staged.end))
            _copy_piece(desk, staged, rest, partial(_open_range, bucket))
    for piece in found.tail if not found.parts else ():
        keep()
        _copy_piece(desk, staged, piece, source.open)
    staged.sync()
    desk.record(staged)
    # the tail is to be shorter than the next part: alone it may be as long as the parts of high numbers
    return len(staged.parts) + 1 if staged.parts or not found.tail else left.next


def _copy_parts(bucket: Bucket, source: str, name: str, staged: Staged, *, size: int, keep: Fence) -> None:
    """As many whole parts as there are in `size` bytes."""
    number = 1
    while staged.uploaded + part_size(number) <= size:
        keep()
        if staged.upload is None:
            staged.upload = bucket.begin(name)
        start, part = staged.uploaded, part_size(number)
        etag = bucket.copy_part(name, staged.upload, number, source, start=start, size=part)
        staged.parts.append(Part(number, start, part, etag))
        number += 1


def _copy_piece(desk: Desk, staged: Staged, piece: Piece, open_piece: Callable[[Piece, int], Body]) -> None:
    desk.add(staged, cast("BinaryIO", PieceReader(open_piece, [piece])), piece.start, piece.size)


def _open_range(bucket: Bucket, piece: Piece, start: int) -> Body:
    """Of an object that is no piece: the range that `piece` tells, from `start` within it on."""
    return bucket.get(piece.name, start=piece.start + start, size=piece.size - start)
