"""Blobs as files that can be mapped: the driver's own, or local copies of what lies in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import bindparam, select

from storage.blobs import Blobs
from storage.db import Database
from storage.digest import Digest
from storage.errors import KeyUnknown, StorageUnavailable
from storage.local_copies.copies import LocalCopies, UnderWay, hold_all
from storage.local_copies.holds import Hold
from storage.local_copies.source import Wanted
from storage.models import Blob
from storage.reference import RepositoryName

_KNOWN: Final = select(Blob.digest).where(Blob.digest.in_(bindparam("digests", expanding=True)))
_BATCH: Final = 500


class LocalFiles:
    """copies: of what lies in a bucket, in processes that need its blobs as files; None elsewhere."""

    def __init__(self, database: Database, blobs: Blobs, copies: LocalCopies | None) -> None:
        self._database, self._blobs, self._copies = database, blobs, copies

    @contextmanager
    def hold(
        self, name: RepositoryName, digests: Sequence[Digest], *, go_on: Callable[[], None] = lambda: None
    ) -> Iterator[list[Path]]:
        """Files with exactly the bytes of these blobs, in order; none goes before the block ends.

        Blobs of a bucket are fetched first where there is no copy of them. go_on: called now and then meanwhile; what
        it raises ends the waiting, not the fetching. Raises BlobUnknown, NameUnknown, BlobDamaged, StorageFull,
        CopiesInUse, StorageUnavailable.
        """
        if self._copies is None:
            paths = [self._blobs.local_path(name, digest) for digest in digests]
            found = [path for path in paths if path is not None]
            if len(found) < len(paths):
                raise StorageUnavailable("this process has no files of what lies in the bucket")
            yield found
            return
        for digest in digests:
            self._blobs.told_of_use(name, digest)
        wanted = [self._wanted(name, digest) for digest in digests]
        copies = self._copies
        with hold_all(
            copies, wanted, lambda each: self._fetched(name, each, lambda it: copies.hold(it, go_on))
        ) as held:
            yield held

    @contextmanager
    def hold_beginning(self, name: RepositoryName, digest: Digest, size: int) -> Iterator[Path]:
        """A file as long as the blob, with its first `size` bytes; it stays until the block ends.

        Of a blob in a bucket no more than those may be here, as the bucket has them. Raises what `hold` raises.
        """
        if self._copies is None:
            with self.hold(name, [digest]) as (path,):
                yield path
            return
        copies = self._copies
        self._blobs.told_of_use(name, digest)
        wanted = self._wanted(name, digest)
        with self._fetched(name, wanted, lambda it: copies.hold_beginning(it, size)) as held:
            yield held.path

    def under_way(self) -> list[UnderWay]:
        """What is being fetched on this node, for whomever."""
        return self._copies.under_way() if self._copies is not None else []

    def known(self, digests: Collection[Digest]) -> set[Digest]:
        """Those that name a blob of the store, whichever repository holds it."""
        texts, found = sorted(map(str, digests)), set[Digest]()
        with self._database.connect() as connection:
            for start in range(0, len(texts), _BATCH):
                rows = connection.execute(_KNOWN, {"digests": texts[start : start + _BATCH]})
                found |= {Digest.parse(text) for text in rows.scalars()}
        return found

    @contextmanager
    def made_file(self) -> Iterator[Path]:
        """Where a program of ours may write what is to become a blob of a bucket. Raises StorageUnavailable."""
        if self._copies is None:
            raise StorageUnavailable("where this server keeps its bytes, nothing can be written as a file")
        with self._copies.made_file() as path:
            yield path

    def _wanted(self, name: RepositoryName, digest: Digest) -> Wanted:
        blob = self._blobs.stat(name, digest)
        return Wanted(digest, blob.size, blob.key)

    def _fetched(self, name: RepositoryName, wanted: Wanted, hold: Callable[[Wanted], Hold]) -> Hold:
        """Between row and bytes a sweep may have come, and a new push after it."""
        try:
            return hold(wanted)
        except KeyUnknown:
            again = self._wanted(name, wanted.digest)
            if again.key == wanted.key:
                raise
            return hold(again)
