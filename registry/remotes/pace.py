"""Giving up on bodies that crawl: they would hold their place for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from registry.remotes.endpoint import BlobBody
from registry.remotes.errors import Stalled

LEAST_RATE: Final = 1024  # bytes in a second, over a window
WINDOW_S: Final = 30.0


def paced(body: BlobBody) -> Iterator[bytes]:
    """The pieces of the body. Raises Stalled when the server is to blame that few come.

    A window is time spent waiting for the server: not for our own limit, nor for who takes the pieces.
    """
    pieces, received, waited_s = iter(body), 0, 0.0
    while True:
        began = _now(body)
        piece = next(pieces, b"")
        received, waited_s = received + len(piece), waited_s + _now(body) - began
        if waited_s >= WINDOW_S:
            if received < LEAST_RATE * waited_s:
                raise Stalled(f"the registry sends less than {LEAST_RATE} bytes a second")
            received, waited_s = 0, 0.0
        if not piece:
            return
        yield piece


def _now(body: BlobBody) -> float:
    """A clock that stands still while our own limit holds the body back."""
    return time.monotonic() - body.waited_s
