"""A bucket in memory that can be made to wait."""

from __future__ import annotations

import threading

from tests.storage.objects.counted import CountingBucket, _Body


class GatedBucket(CountingBucket):
    """Answers no range that begins at `shut_from` or later while the gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.shut_from = 0

    def shut(self, start: int = 0) -> None:
        self.shut_from = start
        self.gate.clear()

    def get(self, name: str, *, start: int = 0, size: int | None = None) -> _Body:
        if start >= self.shut_from:
            assert self.gate.wait(60)
        return super().get(name, start=start, size=size)
