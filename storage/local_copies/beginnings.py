"""The first bytes of blobs, as sparse files of the blobs' length: all that some programs read of weights.

No digest vouches for them: the blob's is of all its bytes. Whoever maps more than the beginning needs a copy.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from secrets import token_hex
from typing import Final

from storage.digest import Digest
from storage.errors import StorageUnavailable
from storage.local_copies.disk import disk_refusals, taken_bytes
from storage.local_copies.holds import Hold, Holds
from storage.local_copies.locks import drop
from storage.local_copies.source import Source, Wanted

_FOLDER: Final = "beginnings"
_NAME: Final = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})\.[0-9]{1,18}")
_MOST_BYTES: Final = 512 * 2**20  # of all of them; a large vocabulary takes ten million
_READ_BYTES: Final = 2**20
_TRIES: Final = 5


class Beginnings:
    """Those in a folder of `cache`, which all processes of a node share. Threads may share it."""

    def __init__(self, cache: Path, source: Source, holds: Holds) -> None:
        self._path = cache / _FOLDER
        self._source, self._holds = source, holds
        self._lock = threading.Lock()

    def hold(self, wanted: Wanted, size: int) -> Hold:
        """A file of which the first `size` bytes are the blob's, fetched if need be; it stays until the hold is closed.

        Raises KeyUnknown, StorageFull, StorageUnavailable.
        """
        path = self._path / f"{wanted.digest.algorithm}-{wanted.digest.encoded}.{size}"
        for _ in range(_TRIES):
            if (found := self._held(path, wanted)) is not None:
                return found
            with self._lock:  # many may ask for one at once, and one fetch of a few bytes after the other will do
                if (found := self._held(path, wanted)) is not None:
                    return found
                self._fetch(path, wanted, size)
                self._make_room(path)
        raise StorageUnavailable("the beginning of the weights is removed again and again")

    def _held(self, path: Path, wanted: Wanted) -> Hold | None:
        with disk_refusals():
            return self._holds.take(path, wanted.size)

    def _fetch(self, path: Path, wanted: Wanted, size: int) -> None:
        with disk_refusals():
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = path.with_name(f"{path.name}-{token_hex(8)}")
        body = self._source.open_range(wanted.key, 0, size)
        try:
            with disk_refusals(), os.fdopen(_new_file(staged), "wb") as file:
                left = size
                while left and (data := body.read(min(left, _READ_BYTES))):
                    file.write(data)
                    left -= len(data)
                if left:
                    raise StorageUnavailable("the beginning of the weights was cut")
                file.truncate(wanted.size)
                file.flush()
                os.fdatasync(file.fileno())  # a name that a crash kept must not stand before bytes that it lost
            with disk_refusals():
                staged.rename(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        finally:
            body.close()

    def _make_room(self, new: Path) -> None:
        """Remove those that were least recently used; the new one, those in use, and those in the making stay."""
        whole = (path for path in self._path.iterdir() if _NAME.fullmatch(path.name))
        sizes = {path: found for path in whole if (found := _stat(path)) is not None}
        excess = sum(taken_bytes(found) for found in sizes.values()) - _MOST_BYTES
        for path in sorted(sizes, key=lambda each: sizes[each].st_mtime):
            if excess <= 0:
                return
            if path != new and drop(path):
                excess -= taken_bytes(sizes[path])


def tidy_beginnings(cache: Path, known: Callable[[Collection[Digest]], Collection[Digest]], *, before: float) -> int:
    """Remove those of blobs that are no more, and what crashes left before that time; how many."""
    folder = cache / _FOLDER
    found = list(folder.iterdir()) if folder.is_dir() else []
    digests = {path: Digest(*path.name.partition(".")[0].split("-")) for path in found if _NAME.fullmatch(path.name)}
    living = set(known(set(digests.values()))) if digests else set()
    gone = [path for path, digest in digests.items() if digest not in living]
    staged = (path for path in found if path not in digests)
    gone += [path for path in staged if (stat := _stat(path)) is not None and stat.st_mtime < before]
    return sum(drop(path) for path in gone)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
