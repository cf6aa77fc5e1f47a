"""Blobs of a bucket as verified files of this node, to be mapped: fetched when they are first needed, and kept while
there is room. Any process of the node may ask; one of them fetches, the others wait for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from storage.digest import Digest
from storage.drivers.objects.bucket import Body
from storage.errors import BlobDamaged, StorageError, StorageFull, StorageUnavailable
from storage.local_copies.beginnings import Beginnings
from storage.local_copies.disk import disk_refusals
from storage.local_copies.download import Download
from storage.local_copies.fetches import Fetches
from storage.local_copies.folder import CopyFolder
from storage.local_copies.holds import Hold, Holds
from storage.local_copies.made import made_file
from storage.local_copies.partial import Partial, progress_of
from storage.local_copies.progress import ProgressLog
from storage.local_copies.source import Source, Wanted

_AT_ONCE: Final = 4  # blobs, of a process; each has connections of its own
_TRIES: Final = 5
_POLL_S: Final = 0.2
_log: Final = logging.getLogger("tonnage.copies")


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A copy in the making: of `total` bytes the first `completed` have come."""

    digest: Digest
    completed: int
    total: int


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """most_bytes: of all copies of a node; 0 for nine tenths of what its disk has free without them.

    stall_s: how long a fetch may stand still, 0 or less for any time. waiting: requests of a process that may wait for
    fetches; others are refused, so that threads are left for what needs none of it.
    """

    most_bytes: int = 0
    stall_s: float = 300.0
    waiting: int = 32


class LocalCopies:
    """Threads may share it."""

    def __init__(self, folder: CopyFolder, source: Source, limits: CopyLimits) -> None:
        self._folder, self._source, self._stall_s = folder, source, limits.stall_s
        self._holds = Holds()
        self._beginnings = Beginnings(folder.path, source, self._holds)
        self._fetches = Fetches(at_once=_AT_ONCE, waiting=limits.waiting)

    def held(self, wanted: Wanted) -> Hold | None:
        """Its copy, held; None where there is none yet."""
        with disk_refusals():
            return self._holds.take(self._folder.copy_of(wanted.digest), wanted.size)

    def check_fits(self, wanted: Collection[Wanted]) -> None:
        """Raises StorageFull for what could not be here at once even if nothing else were."""
        self._folder.make()
        self._folder.check_fits(sum(each.size for each in wanted))

    def hold(self, wanted: Wanted, go_on: Callable[[], None]) -> Hold:
        """Its copy, fetched if it must be. go_on: called now and then; what it raises ends the waiting alone.

        Raises KeyUnknown, BlobDamaged, StorageFull, StorageUnavailable.
        """
        self._folder.make()
        for _ in range(_TRIES):
            found = self.held(wanted)
            if found is not None:
                return found
            self._fetches.wait_for(wanted.digest, partial(self._fetch, wanted), go_on)
        raise StorageUnavailable("the copy has to make room for others again and again; raise TONNAGE_CACHE_BYTES")

    def hold_beginning(self, wanted: Wanted, size: int) -> Hold:
        """Its copy if there is one, else a file of which the first `size` bytes are the blob's, and no digest says so.

        Raises KeyUnknown, StorageFull, StorageUnavailable.
        """
        return self.held(wanted) or self._beginnings.hold(wanted, size)

    def under_way(self) -> list[UnderWay]:
        """What this node is fetching now, whichever process does."""
        found = [(digest, progress_of(self._folder.part_of(digest))) for digest in self._folder.under_way()]
        return [UnderWay(digest, *progress) for digest, progress in found if progress is not None]

    @contextmanager
    def made_file(self) -> Iterator[Path]:
        """Where a program of ours may write a file that is to become a blob; it is gone when the block ends."""
        self._folder.make()
        with made_file(self._folder.path) as path:
            yield path

    def _fetch(self, wanted: Wanted, fail: Callable[[StorageError], None]) -> None:
        """Return when the copy is there. fail: told of silence at once, when connections may take a minute to end."""
        file = self._take(wanted)
        if file is None:
            return
        with file:
            if self._is_here(wanted):
                file.drop()
                return
            kept = self._reserved(wanted, file)
            log = ProgressLog(wanted.digest, wanted.size, kept)
            # what a crash of the whole machine left may be other than its mark says: once more from the start then
            for begin in (kept, 0) if kept else (0,):
                if self._download(wanted, file, begin, log, fail) == wanted.digest:
                    file.publish(self._folder.copy_of(wanted.digest))
                    log.end()
                    return
            file.drop()
        _log.error("damaged digest=%s key=%s", wanted.digest, wanted.key)
        raise BlobDamaged(
            f"the stored bytes of {wanted.digest} have another digest: push the model again, and look for more of the "
            "kind with tonnage scrub",
            digest=str(wanted.digest),
        )

    def _reserved(self, wanted: Wanted, file: Partial) -> int:
        """Room for the file; how many of its bytes an earlier attempt left."""
        kept = file.kept()
        try:
            self._folder.make_room(wanted.size, but=file.name, reserve=file.reserve)
        except StorageError:
            if not kept:
                file.drop()
            raise
        return kept

    def _download(
        self, wanted: Wanted, file: Partial, kept: int, log: ProgressLog, fail: Callable[[StorageError], None]
    ) -> Digest:
        """The digest of the bytes that came."""

        def open_range(start: int, size: int) -> Body:
            return self._source.open_range(wanted.key, start, size)

        download = Download(open_range, file, wanted.size, stall_s=self._stall_s, kept=kept)
        try:
            return download.run(wanted.digest.algorithm, log)
        except StorageFull:
            file.drop()
            raise
        except StorageUnavailable as error:
            fail(error)
            raise
        finally:
            download.close()

    def _take(self, wanted: Wanted) -> Partial | None:
        """The partial file, ours alone; None where another process has made the copy meanwhile."""
        path, moved, moved_at, is_told = self._folder.part_of(wanted.digest), 0, time.monotonic(), False
        while True:
            file = Partial.take(path, wanted.size)
            if file is not None or self._is_here(wanted):
                return file
            if not is_told:
                is_told = True
                _log.info("another process is fetching digest=%s", wanted.digest)
            now, seen = time.monotonic(), _changed_at(path)
            if seen != moved:
                moved, moved_at = seen, now
            elif 0 < self._stall_s < now - moved_at:
                raise StorageUnavailable(
                    f"the process that fetches the weights has stood still for {self._stall_s:g} s"
                )
            time.sleep(_POLL_S)

    def _is_here(self, wanted: Wanted) -> bool:
        found = self.held(wanted)
        if found is None:
            return False
        with found:
            return True


@contextmanager
def hold_all(copies: LocalCopies, wanted: Sequence[Wanted], fetch: Callable[[Wanted], Hold]) -> Iterator[list[Path]]:
    """The copies of `wanted`, in order, which stay where they are until the block ends.

    fetch: holds one that is not there yet. Raises StorageFull, before anything is fetched, where they can never fit.
    """
    paths: dict[Wanted, Path] = {}
    with ExitStack() as held:
        for each in dict.fromkeys(wanted):
            if (found := copies.held(each)) is not None:
                paths[each] = held.enter_context(found).path
        missing = [each for each in dict.fromkeys(wanted) if each not in paths]
        if missing:
            copies.check_fits(set(wanted))
        for each in missing:
            paths[each] = held.enter_context(fetch(each)).path
        yield [paths[each] for each in wanted]


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
