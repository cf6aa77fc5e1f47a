"""How long a connection may stand still while one of our threads waits for it."""

from __future__ import annotations

import errno
import socket
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

STALL_S = 30.0  # without a single byte either way; the ollama client calls a download stalled after as long


class PatientSocket(socket.socket):
    """A connected socket whose blocking calls end after `STALL_S` without progress, as if the peer had reset it.

    gunicorn's threads read and write without a limit of time: a few silent strangers would hold them all.
    """

    def setblocking(self, flag: bool) -> None:
        self.settimeout(STALL_S if flag else 0.0)

    def recv(self, *arguments: Any) -> bytes:
        try:
            return super().recv(*arguments)
        except TimeoutError:
            raise _stalled() from None

    def recv_into(self, *arguments: Any) -> int:
        try:
            return super().recv_into(*arguments)
        except TimeoutError:
            raise _stalled() from None

    def send(self, *arguments: Any) -> int:
        try:
            return super().send(*arguments)
        except TimeoutError:
            raise _stalled() from None

    def sendall(self, *arguments: Any) -> None:
        """The limit holds for each part of 64 KiB: a slow reader is not a stalled one."""
        data = memoryview(arguments[0])
        for start in range(0, len(data), _PIECE):
            try:
                super().sendall(data[start : start + _PIECE])
            except TimeoutError:
                raise _stalled() from None

    def sendfile(self, *arguments: Any, **options: Any) -> int:
        try:
            return super().sendfile(*arguments, **options)
        except TimeoutError:
            raise _stalled() from None


_PIECE = 64 * 2**10


def _stalled() -> ConnectionResetError:
    """What gunicorn takes for a client that left: it closes, and writes no trace to the log."""
    return ConnectionResetError(errno.ECONNRESET, "the connection stood still")


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread over patient sockets."""

    def enqueue_req(self, conn: TConn) -> None:
        if not isinstance(conn.sock, PatientSocket):
            blocking = conn.sock.getblocking()
            conn.sock = PatientSocket(fileno=conn.sock.detach())
            conn.sock.setblocking(blocking)
        super().enqueue_req(conn)
