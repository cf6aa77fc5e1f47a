"""What takes much memory is done by few at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import BoundedSemaphore
from typing import Final

_LARGE_BYTES: Final = 256 * 2**10
_LARGE: Final = BoundedSemaphore(
    2
)  # of a process at once: parsed, a manifest of 4 MiB can take a hundred times as much


def room_to_parse(raw: bytes) -> AbstractContextManager[object]:
    """Hold it while a manifest is parsed; large ones wait for each other."""
    return _LARGE if len(raw) > _LARGE_BYTES else nullcontext()
