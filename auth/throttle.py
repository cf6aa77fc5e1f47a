"""How often one address may fail before it has to wait."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from auth.errors import TooManyRequests
from auth.peers import site_of

BURST: Final = 30.0  # failures in a row
A_SECOND: Final = 1 / 3  # failures that are forgiven
_MAX_ADDRESSES: Final = 10_000


@dataclass(slots=True)
class _Record:
    left: float
    at: float


class Throttle:
    """Failures of addresses, in this process: with several, an address has as many times the burst.

    What is guessed here has 256 random bits: this keeps a client that went wrong from trying on and on, and tells its
    owner. What is not remembered any more has failed less recently than ten thousand other addresses.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """Raises TooManyRequests while the address has failed too often."""
        with self._lock:
            record = self._records.get(site_of(address))
            if record is None:
                return
            self._forgive(record)
            if record.left < 1:
                raise TooManyRequests(
                    "too many failed requests from this address", retry_after_s=math.ceil((1 - record.left) / A_SECOND)
                )

    def count(self, address: str) -> None:
        """The address failed once more."""
        site = site_of(address)
        with self._lock:
            record = self._records.setdefault(site, _Record(BURST, self._now()))
            self._records.move_to_end(site)
            self._forgive(record)
            record.left = max(0.0, record.left - 1)
            while len(self._records) > _MAX_ADDRESSES:
                self._records.popitem(last=False)

    def _forgive(self, record: _Record) -> None:
        now = self._now()
        record.left = min(BURST, record.left + (now - record.at) * A_SECOND)
        record.at = now
