"""The folder of local copies: what lies in it, and room in it. Every process of a node may use it at once.

A whole copy is named by its digest, so it is right whoever made it. Who uses one holds a shared lock on it, and who
fetches one has the partial file alone: what can be locked is nobody's, and may go.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from storage.digest import Digest
from storage.errors import CopiesInUse, StorageFull, StorageUnavailable
from storage.local_copies.beginnings import tidy_beginnings
from storage.local_copies.disk import disk_refusals, taken_bytes
from storage.local_copies.eviction import Entry, choose, most_bytes
from storage.local_copies.locks import drop, have_alone, share, within
from storage.local_copies.made import tidy_made

_PART: Final = ".part"
_NAME: Final = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(\.part)?")
_TURN: Final = "room.lock"
_TURN_S: Final = 30.0  # whoever has it removes files, and large ones take a while
_TURN_POLL_S: Final = 0.05
_TRIES: Final = 8
_LEFT_S: Final = 24 * 3600.0  # so long, whoever is asked for the blob again goes on where somebody stopped


class CopyFolder:
    """bound: bytes that all copies may take; 0 for nine tenths of what the filesystem has free without them."""

    def __init__(self, path: Path, bound: int = 0) -> None:
        self.path = path
        self._bound = bound

    def copy_of(self, digest: Digest) -> Path:
        return self.path / f"{digest.algorithm}-{digest.encoded}"

    def part_of(self, digest: Digest) -> Path:
        return self.path / f"{digest.algorithm}-{digest.encoded}{_PART}"

    def make(self) -> None:
        """The folder itself, for our own user alone."""
        with disk_refusals():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def entries(self) -> list[Entry]:
        """Every copy, whole or begun."""
        return [entry for entry in map(self._entry, self._names()) if entry is not None]

    def check_fits(self, size: int) -> None:
        """Raises StorageFull for what could not be here even if it were alone."""
        most = self._most_bytes()
        if size > most:
            way_out = "raise TONNAGE_CACHE_BYTES" if 0 < self._bound < size else "make room on its disk"
            raise StorageFull(
                f"the model's files take {_readable(size)}, and local copies may take {_readable(most)} on this node: "
                + way_out
            )

    def make_room(self, needed: int, *, but: str, reserve: Callable[[], None]) -> None:
        """Remove copies until `needed` bytes fit, then `reserve` them; one process after the other.

        but: the name of the file that they are for. Raises CopiesInUse where those are in the way; StorageUnavailable.
        """
        with self._turn():
            for _ in range(_TRIES):
                entries, most = [each for each in self.entries() if each.name != but], self._most_bytes()
                chosen = choose(entries, needed, most)
                if chosen is None:
                    held = sum(entry.size for entry in entries if entry.is_held)
                    raise CopiesInUse(
                        f"no room for {_readable(needed)} of weights: {_readable(held)} of the {_readable(most)} that "
                        "local copies may take are in use; try again when a model is idle, or stop one",
                        lacking=held + needed - most,
                    )
                if all(self.drop(entry.name) for entry in chosen):
                    reserve()
                    return
        raise StorageUnavailable("copies of weights come into use faster than they can make room")

    def drop(self, name: str) -> bool:
        """Remove a copy, whole or begun; False if somebody has it. One that is gone already is no matter."""
        return drop(self.path / name)

    def under_way(self) -> list[Digest]:
        """What some process is fetching at this moment."""
        begun = [name for name in self._names() if name.endswith(_PART)]  # who looks at whole copies is in others' way
        return [_digest(entry.name) for entry in map(self._entry, begun) if entry is not None and entry.is_held]

    def tidy(self, known: Callable[[Collection[Digest]], Collection[Digest]]) -> int:
        """Remove what crashes left, and copies of blobs that are no more; how many.

        known: of some digests, those that still name a blob.
        """
        self.make()
        with self._turn():  # for a moment we have each file alone: whoever makes room would think it in use
            entries = [entry for entry in self.entries() if not entry.is_held]
        living = set(known({_digest(entry.name) for entry in entries})) if entries else set()
        before = time.time() - _LEFT_S
        gone = [
            entry.name
            for entry in entries
            if _digest(entry.name) not in living or (entry.is_part and entry.used_at < before)
        ]
        with self._turn():
            dropped = sum(self.drop(name) for name in gone) + tidy_made(self.path)
        return dropped + tidy_beginnings(self.path, known, before=before)

    def _most_bytes(self) -> int:
        """How much all copies may take as things are."""
        taken = 0
        with disk_refusals():
            disk = os.statvfs(self.path)
            for name in self._names():
                with suppress(FileNotFoundError):
                    taken += taken_bytes((self.path / name).stat())
        return most_bytes(self._bound, free=disk.f_bavail * disk.f_frsize, taken=taken)

    def _names(self) -> list[str]:
        with disk_refusals(), suppress(FileNotFoundError):
            return [name for name in os.listdir(self.path) if _NAME.fullmatch(name)]  # noqa: PTH208  # names alone
        return []

    def _entry(self, name: str) -> Entry | None:
        is_part = name.endswith(_PART)
        with self._opened(name) as descriptor:
            if descriptor is None:
                return None
            found = os.fstat(descriptor)
            is_free = share(descriptor) if is_part else have_alone(descriptor)
        return Entry(name, found.st_size, found.st_mtime, is_part, not is_free)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int | None]:
        """None where it is gone."""
        try:
            with disk_refusals():
                descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Two who made room at once would both take it."""
        with disk_refusals():
            descriptor = os.open(self.path / _TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not within(_TURN_S, lambda: have_alone(descriptor), _TURN_POLL_S):
                raise StorageUnavailable("another process makes room for weights and does not get on with it")
            yield
        finally:
            os.close(descriptor)


def _digest(name: str) -> Digest:
    return Digest(*name.removesuffix(_PART).split("-"))


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
