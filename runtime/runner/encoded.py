"""Embeddings of images that were encoded before, so that the next turn of a conversation does not encode again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray


class EncodedImages:
    """Arrays by key, at most `most_bytes` of them; the ones not asked for longest go first. For several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._arrays: OrderedDict[Hashable, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> NDArray[np.float32] | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: Hashable, array: NDArray[np.float32]) -> None:
        """Keep `array`, which nobody may write to any more. One that is larger than everything is not kept."""
        array.setflags(write=False)
        with self._lock:
            if key in self._arrays or array.nbytes > self._most_bytes:
                return
            self._arrays[key] = array
            self._bytes += array.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._arrays.popitem(last=False)
                self._bytes -= oldest.nbytes

    def clear(self) -> None:
        with self._lock:
            self._arrays.clear()
            self._bytes = 0
