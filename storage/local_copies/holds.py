"""Copies that this process has in use: what is held here is removed by no process."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.local_copies.locks import SOON_S, is_at, share, within


@dataclass(slots=True)
class _Open:
    """One descriptor, however many use it: a model may have hundreds of files, and a process hundreds of requests."""

    descriptor: int
    users: int = 0


class Hold:
    """A copy that stays where it is until this is closed."""

    def __init__(self, path: Path, holds: Holds, opened: _Open) -> None:
        self.path = path
        self._holds, self._opened = holds, opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holds.release(self.path, self._opened)


class Holds:
    """Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[Path, _Open] = {}

    def take(self, path: Path, size: int) -> Hold | None:
        """Hold the whole copy at `path`, which counts as used now; None where there is none of `size` bytes."""
        found: list[Hold] = []

        def attempt() -> bool:
            with self._lock:
                try:
                    opened = self._open(path)
                except FileNotFoundError:
                    return True
                if opened is None:
                    return False
                if os.fstat(opened.descriptor).st_size == size:
                    os.utime(opened.descriptor)
                    opened.users += 1
                    found.append(Hold(path, self, opened))
                elif not opened.users:
                    self._close(path, opened)
                return True

        within(SOON_S, attempt)
        return found[0] if found else None

    def release(self, path: Path, opened: _Open) -> None:
        with self._lock:
            opened.users -= 1
            if not opened.users:
                self._close(path, opened)

    def _open(self, path: Path) -> _Open | None:
        """The file that is at `path` now, locked; None while somebody has it alone. Raises FileNotFoundError."""
        known = self._opened.get(path)
        if known is not None and is_at(path, known.descriptor):
            return known
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if share(descriptor) and is_at(path, descriptor):
                opened = self._opened[path] = _Open(descriptor)
                return opened
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _close(self, path: Path, opened: _Open) -> None:
        os.close(opened.descriptor)
        if self._opened.get(path) is opened:
            del self._opened[path]
