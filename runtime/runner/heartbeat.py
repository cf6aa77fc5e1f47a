"""Signs of life: the supervisor kills a runner that is at work and gives none, since llama.cpp may hang for ever."""

from __future__ import annotations

import socket
import time

from runtime.wire import encode_frame

_EVERY_S = 1.0
_BUSY, _IDLE = (encode_frame({"event": "beat", "busy": busy}) for busy in (True, False))


class Heartbeat:
    """Tells on the control channel whether the loop is at work. It never waits, and costs a look at the clock.

    For one thread, which calls `busy` before it computes, `step` after each step, and `idle` before it waits for
    requests. While at work it sends a frame a second; between work and rest two a second at most.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._is_told_busy = False
        self._told_at = -_EVERY_S
        self._unsent = b""

    def busy(self) -> None:
        """Something is about to be computed: silence would mean that it hangs."""
        if not self._is_told_busy:
            self._is_told_busy = self._send(_BUSY)
        elif time.monotonic() - self._told_at >= _EVERY_S:
            self._send(_BUSY)

    step = busy  # a step was computed, and another may follow: the same to say

    def idle(self) -> float | None:
        """Nothing is to be computed. Returns after how many seconds to call again; None where all is said.

        Rest is told late, so that many short requests make no more frames than a long one.
        """
        if not self._is_told_busy:
            return None
        left_s = self._told_at + _EVERY_S - time.monotonic()
        if left_s > 0:
            return left_s
        if self._send(_IDLE):
            self._is_told_busy = False
            return None
        return _EVERY_S

    def _send(self, frame: bytes) -> bool:
        """Whether all of `frame` is on its way. Where the channel is full, nobody reads; the next call tries again."""
        self._told_at = time.monotonic()
        pending = self._unsent or frame
        try:
            sent = self._control.send(pending, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        is_other = bool(self._unsent)
        self._unsent = pending[sent:]  # the rest of a frame goes before the next one
        return not is_other and not self._unsent
