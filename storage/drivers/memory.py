"""Bytes in this process, for tests and experiments: lost when it ends, invisible to any other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from storage.drivers.protocol import Fence, StagedWriter, check_key, hold_soon, no_fence
from storage.errors import KeyUnknown


class _Writer:
    def __init__(self, handle: str, staged: bytearray) -> None:
        self.handle = handle
        self._staged = staged

    def write(self, data: bytes) -> None:
        self._staged += data

    def mark(self) -> int:
        return len(self._staged)

    def sync(self, mark: int | None = None) -> None:
        """Memory is as durable as it gets."""


class MemoryDriver:
    """A `Driver` in two dictionaries. The handle of staged bytes is their key."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._staged: dict[str, bytearray] = {}
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def write(self, key: str, source: BinaryIO) -> int:
        data = source.read()
        self._objects[check_key(key)] = data
        return len(data)

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        reader = BytesIO(self._bytes(key))
        reader.seek(start)
        return reader

    def stat(self, key: str) -> int:
        return len(self._bytes(key))

    def delete(self, key: str) -> None:
        self._objects.pop(check_key(key), None)

    def keys(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def changed_at(self, key: str) -> float | None:
        self._bytes(key)
        return None

    def download_url(self, key: str, *, expires_s: int) -> str | None:
        return None

    def local_path(self, key: str) -> Path | None:
        self._bytes(key)
        return None

    def stage(self, key: str) -> str:
        self._staged[check_key(key)] = bytearray()
        return key

    @contextmanager
    def append(self, handle: str, *, at: int, fence: Fence = no_fence) -> Iterator[StagedWriter]:
        with self._alone(handle):
            fence()
            if handle not in self._staged and handle in self._objects:
                self._staged[handle] = bytearray(self._objects.pop(handle))
            staged = self._staged.get(handle)
            if staged is None or len(staged) < at:
                raise KeyUnknown("staged bytes are gone", key=handle)
            del staged[at:]
            yield _Writer(handle, staged)

    def staged_path(self, handle: str) -> Path | None:
        return None

    def read_staged(self, handle: str, *, fence: Fence = no_fence) -> BinaryIO:
        staged = self._staged.get(handle)
        return BytesIO(self._bytes(handle) if staged is None else bytes(staged))

    def publish(self, handle: str, *, size: int, fence: Fence = no_fence) -> None:
        with self._alone(handle):
            fence()
            staged = self._staged.pop(handle, None)
            if staged is not None:
                self._objects[handle] = bytes(staged[:size])
            if len(self._bytes(handle)) != size:
                raise KeyUnknown("staged bytes are gone", key=handle)

    def restage(self, handle: str, key: str, *, size: int, keep: Fence) -> str:
        keep()
        with self.read_staged(handle) as old:
            copy = bytearray(old.read(size))
        if len(copy) < size:
            raise KeyUnknown("staged bytes are gone", key=handle)
        self._staged[check_key(key)] = copy
        return key

    def sweep_staged(self, is_known: Callable[[Collection[str]], Collection[str]], *, older_than_s: float) -> int:
        return 0  # nothing outlives the process that staged it

    def discard(self, handle: str) -> None:
        self._staged.pop(check_key(handle), None)
        self._objects.pop(handle, None)

    @contextmanager
    def _alone(self, handle: str) -> Iterator[None]:
        def hold() -> bool:
            with self._lock:
                is_free = handle not in self._held
                self._held.add(handle)
                return is_free

        hold_soon(hold, handle)
        try:
            yield
        finally:
            self._held.discard(handle)

    def _bytes(self, key: str) -> bytes:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise KeyUnknown("no such key", key=key) from None
