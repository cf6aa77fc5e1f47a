"""How far a fetch is, in the log: its begin, every tenth of it or some seconds, and its end."""

from __future__ import annotations

import logging
import time
from typing import Final

from storage.digest import Digest

_EVERY_S: Final = 5.0
_SHARE: Final = 0.1
_QUICK_S: Final = 1.0  # a fetch that takes no longer tells its begin and its end
_log: Final = logging.getLogger("tonnage.copies")


class ProgressLog:
    def __init__(self, digest: Digest, size: int, kept: int) -> None:
        self._digest, self._size, self._kept = digest, size, kept
        self._told, self._started = 0.0, time.monotonic()
        self._told_at = self._started
        _log.info("fetching digest=%s size=%d kept=%d", digest, size, kept)

    def __call__(self, done: int) -> None:
        now, share = time.monotonic(), done / self._size
        is_step = share - self._told >= _SHARE and now - self._started > _QUICK_S
        if is_step or now - self._told_at > _EVERY_S:
            self._told, self._told_at = share, now
            _log.info("fetching digest=%s progress=%.0f%% seconds=%.1f", self._digest, share * 100, self._seconds)

    def end(self) -> None:
        rate = (self._size - self._kept) / max(self._seconds, 1e-6) / 2**20
        _log.info("fetched digest=%s seconds=%.1f mib_a_second=%.0f", self._digest, self._seconds, rate)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started
