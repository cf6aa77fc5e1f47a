"""A whole read of something far away: the next ranges are on their way while one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

RANGE_BYTES: Final = 4 * 2**20
_AHEAD: Final = 3  # ranges, each in memory


def read_ahead(read: Callable[[int, int], bytes], size: int) -> Iterator[bytes]:
    """`size` bytes in order, in pieces; read: those from a start on, so many. Raises what it raises."""
    waiting = deque[Future[bytes]]()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as pool:
        try:
            for start in range(0, size, RANGE_BYTES):
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(read, start, min(RANGE_BYTES, size - start)))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
