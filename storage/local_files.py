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
from storage.local_copies.copies import LocalCopies, UnderWay, Wanted, hold_all
from storage.local_copies.holds import Hold
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
        with hold_all(self._copies, wanted, lambda each: self._fetched(name, each, go_on)) as held:
            yield held

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

    def _fetched(self, name: RepositoryName, wanted: Wanted, go_on: Callable[[], None]) -> Hold:
        """Between row and bytes a sweep may have come, and a new push after it."""
        assert self._copies is not None
        try:
            return self._copies.hold(wanted, go_on)
        except KeyUnknown:
            again = self._wanted(name, wanted.digest)
            if again.key == wanted.key:
                raise
            return self._copies.hold(again, go_on)
