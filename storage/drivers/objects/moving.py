"""From staged to published, and from one key to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, cast

from storage.drivers.objects.bucket import Bucket
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import Desk, object_name, read_all
from storage.drivers.objects.parts import BLOCK_BYTES, Part, Piece, Staged, part_size
from storage.drivers.objects.reader import PieceReader
from storage.drivers.protocol import Fence
from storage.errors import KeyUnknown


def settle(bucket: Bucket, key: str, staged: Staged, number: int, read: Callable[[Piece], bytes]) -> None:
    """Make an object of everything that is staged; again is harmless. Raises KeyUnknown.

    number: of the part that the tail becomes. read: the bytes of a piece.
    """
    name, tail, size = object_name(key), staged.tail, staged.end
    if size <= BLOCK_BYTES and not staged.parts:
        bucket.put(name, b"".join(map(read, tail)))
        if staged.upload is not None:
            bucket.abort(name, staged.upload)
        return
    upload = staged.upload if staged.upload is not None else bucket.begin(name)
    parts = [(part.number, part.etag) for part in staged.parts]
    try:
        if tail:
            body = PieceReader(read, tail)
            parts.append((number, bucket.put_part(name, upload, number, cast("BinaryIO", body), body.size)))
        bucket.complete(name, upload, parts)
    except KeyUnknown:  # an attempt before this one came through, and its answer was lost
        if bucket.stat(name).size != size:
            raise


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
        settle(bucket, left.key, found, left.next, source.read)
    staged = Staged()
    if found.parts or is_published:
        _copy_parts(bucket, object_name(left.key), object_name(new.key), staged, size=size, keep=keep)
        while staged.end < size:
            keep()
            piece_size = min(BLOCK_BYTES, size - staged.end)
            desk.add(staged, read_all(bucket, object_name(left.key), start=staged.end, size=piece_size), staged.end)
    for piece in found.tail if not found.parts else ():
        keep()
        desk.add(staged, source.read(piece), piece.start)
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
