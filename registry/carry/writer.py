"""Writing an archive: every byte of it follows from the models, so a run that was ended is gone on with by the next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from auth.keys import PrivateKey
from registry.carry.errors import BlobDamaged, CarryError, ExportRefused
from registry.carry.headers import ending, header, padding
from registry.carry.layout import INDEX_NAME, LAYOUT, LAYOUT_NAME, SIGNATURE_NAME, blob_name
from registry.carry.partial import Resumed, partial_of
from registry.carry.plan import Item, Plan
from registry.carry.signature import sign
from registry.remotes.progress import Bar, Progress
from storage.errors import BlobUnknown, KeyUnknown, ManifestUnknown, NameUnknown
from storage.store import Store

_READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """size: of the archive. kept: bytes of it that an earlier run had written."""

    size: int
    kept: int


class ArchiveWriter:
    """Writes one plan."""

    def __init__(self, store: Store, plan: Plan, key: PrivateKey, progress: Progress) -> None:
        self._store, self._plan, self._key, self._progress = store, plan, key, progress

    def write(self, target: Path, *, replaces: bool = False) -> Written:
        """The archive, which has its name only once it is whole and durable. Raises CarryError, StorageError.

        replaces: whether another file of that name may go.
        """
        items = self._plan.items
        bar = self._progress.bar(f"writing {target.name}", sum(item.size for item, _ in items))
        try:
            with partial_of(target) as out:
                self._head(out)
                done = 0
                for item, is_manifest in items:
                    self._item(out, item, is_manifest, _Shifted(bar, done))
                    done += item.size
                out.write(ending(out.position))
                out.finish(target, replaces=replaces)
        finally:
            bar.close()
        return Written(out.position, out.kept)

    def _head(self, out: Resumed) -> None:
        index = self._plan.index
        for name, data in ((LAYOUT_NAME, LAYOUT), (INDEX_NAME, index), (SIGNATURE_NAME, sign(self._key, index))):
            out.write(header(name, len(data)) + data + padding(len(data)))

    def _item(self, out: Resumed, item: Item, is_manifest: bool, bar: _Shifted) -> None:
        """Its header and bytes, as they are hashed. Raises BlobDamaged."""
        out.write(header(blob_name(item.digest), item.size))
        hasher, position = hashlib.new(item.digest.algorithm), 0
        with self._open(item, is_manifest) as source:
            for block in _blocks(source, item):
                hasher.update(block)
                out.write(block)
                position += len(block)
                bar.move(position)
        if position < item.size or hasher.hexdigest() != item.digest.encoded:
            raise BlobDamaged(
                f"{item.digest} in {item.repository} is damaged in this store: run `tonnage scrub`, push or pull the "
                "model again, then start this export again"
            )
        out.write(padding(item.size))

    def _open(self, item: Item, is_manifest: bool) -> BinaryIO:
        try:
            if is_manifest:
                return BytesIO(self._store.repositories.get_manifest(item.repository, item.digest).raw)
            return self._store.blobs.open(item.repository, item.digest)
        except (BlobUnknown, ManifestUnknown, NameUnknown):
            raise ExportRefused(f"{item.digest} was taken out of {item.repository} meanwhile") from None
        except KeyUnknown:
            raise BlobDamaged(
                f"the bytes of {item.digest} in {item.repository} are gone: run `tonnage scrub`, push or pull the "
                "model again, then start this export again"
            ) from None


class _Shifted:
    """A bar for the whole, moved by one part of it."""

    def __init__(self, bar: Bar, before: int) -> None:
        self._bar, self._before = bar, before

    def move(self, position: int) -> None:
        self._bar.move(self._before + position)


def _blocks(source: BinaryIO, item: Item) -> Iterator[bytes]:
    """At most the item's size of the source. Raises CarryError for a disk that does not give it."""
    left = item.size
    try:
        while left and (block := source.read(min(_READ_BYTES, left))):
            left -= len(block)
            yield block
    except OSError as error:
        raise CarryError(f"cannot read {item.digest}: {error.strerror}") from error
