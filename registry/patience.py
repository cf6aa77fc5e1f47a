"""How long a connection may stand still, or crawl, while one of our threads waits for it."""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import selectors
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors as http_errors
from gunicorn.workers.gthread import TConn, ThreadWorker

log = logging.getLogger("tonnage.http")

STALL_S = 30.0  # without a single byte either way; the ollama client calls a download stalled after as long
HEAD_S = 10.0  # a request's head is small and comes at once
LEAST_RATE = 1024.0  # bytes in a second: who is slower uses up the patience
LINGER_S = 2.0
_NEXT_MS = 20
_LINGERERS_MAX = 1000
_PIECE = 64 * 2**10
_SENDFILE_PIECE = 8 * 2**20


class PatientSocket(socket.socket):
    """A connected socket that gives a peer up as if it had reset the connection.

    gunicorn's threads read and write without a limit of time: a few silent strangers would hold them all, and so would
    strangers that send a byte now and then. A peer has `STALL_S` of patience, and `HEAD_S` until its request's head is
    here; waiting for it takes from that, each byte that passes gives back what it takes at the least rate, and a new
    request begins with all of it.

    The kernel keeps the time (SO_RCVTIMEO, SO_SNDTIMEO): Python's own timeouts poll before each call.
    """

    _most = _left = STALL_S
    _wait = STALL_S  # the limit of one wait
    _told: float | None = None  # what the kernel knows of it

    def setblocking(self, flag: bool) -> None:
        self._most = self._left = self._wait = HEAD_S
        super().setblocking(flag)

    def settimeout(self, value: float | None) -> None:
        """How long one wait may take from now on; gunicorn sets and unsets it around reads that never happen."""
        if value == 0:
            super().setblocking(False)
            return
        if super().gettimeout() is not None:
            super().setblocking(True)
        self._wait = self._most if value is None else min(value, self._most)

    def be_patient_for(self, seconds: float) -> None:
        """Until the next request: whoever has something better to do than to wait for this peer."""
        self._most, self._left, self._wait = (min(each, seconds) for each in (self._most, self._left, self._wait))

    def be_patient(self) -> None:
        """The head is here: somebody with a request."""
        self._most = self._left = self._wait = STALL_S

    def recv(self, *arguments: Any) -> bytes:
        began = self._begin()
        try:
            data = super().recv(*arguments)
        except BlockingIOError:
            if arguments[1:] and arguments[1] & socket.MSG_DONTWAIT:
                raise  # whoever only looks whether something is there
            raise self._nothing() from None
        self._spend(began, len(data))
        return data

    def recv_into(self, *arguments: Any) -> int:
        began = self._begin()
        try:
            received = super().recv_into(*arguments)
        except BlockingIOError:
            raise self._nothing() from None
        self._spend(began, received)
        return received

    def send(self, *arguments: Any) -> int:
        began = self._begin()
        try:
            sent = super().send(*arguments)
        except BlockingIOError:
            raise self._nothing() from None
        self._spend(began, sent)
        return sent

    def sendall(self, *arguments: Any) -> None:
        """The limits hold for each part of 64 KiB."""
        data = memoryview(arguments[0])
        for start in range(0, len(data), _PIECE):
            began = self._begin()
            piece = data[start : start + _PIECE]
            try:
                super().sendall(piece)
            except BlockingIOError:
                raise self._nothing() from None
            self._spend(began, len(piece))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As the base's, but a file that ends too soon ends the connection: its length has been promised."""
        end = os.fstat(file.fileno()).st_size if count is None else offset + count
        start, ours, theirs = offset, self.fileno(), file.fileno()
        while offset < end:
            began = self._begin()
            try:
                sent = os.sendfile(ours, theirs, offset, min(end - offset, _SENDFILE_PIECE))
            except BlockingIOError:
                raise self._nothing() from None
            if sent == 0:
                raise ConnectionResetError(errno.ECONNRESET, "the file is shorter than it was")
            self._spend(began, sent)
            offset += sent
        return offset - start

    def _begin(self) -> float:
        if self._told != self._wait:
            seconds, rest = divmod(max(self._wait, 0.001), 1)
            limit = struct.pack("@ll", int(seconds), int(rest * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.setsockopt(socket.SOL_SOCKET, option, limit)
            self._told = self._wait
        return time.monotonic()

    def _nothing(self) -> OSError:
        """What it means that the kernel had nothing, in time."""
        return _stalled() if super().gettimeout() is None else BlockingIOError(errno.EAGAIN, "not now")

    def _spend(self, began: float, moved: int) -> None:
        """Raises ConnectionResetError when the patience is used up."""
        waited = time.monotonic() - began
        self._left = min(self._most, self._left - waited + moved / LEAST_RATE)
        if self._left <= 0:
            raise _stalled()


def _stalled() -> ConnectionResetError:
    """What gunicorn takes for a client that left: it closes, and writes no trace to the log."""
    return ConnectionResetError(errno.ECONNRESET, "the connection stood still")


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread over patient sockets, whose loop waits for nobody.

    gthread's own loop, which accepts connections, also sees to their ends: it reads from each one that it closes until
    the peer closes too, for up to two seconds. Here that is left to the poller.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lingering: dict[socket.socket, Linger] = {}  # in the order of their deadlines
        self._given = 0  # connections that threads have, or wait for one; changed by the loop alone

    def enqueue_req(self, conn: TConn) -> None:
        if not isinstance(conn.sock, PatientSocket):
            blocking = conn.sock.getblocking()
            plain = conn.sock
            conn.sock = PatientSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
            conn.sock.setblocking(blocking)
            conn.close = partial(self._close, conn.sock)
        self._given += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        self._given -= 1
        super().finish_request(conn, fs)

    def accept(self, listener: Any) -> None:
        super().accept(listener)
        if self._given >= self.cfg.threads:
            self.set_accept_enabled(False)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Leave new connections to workers that have threads for them; asked again after each event of the loop."""
        super().set_accept_enabled(enabled and self._given < self.cfg.threads)

    def handle(self, conn: TConn) -> Any:
        """One request, and those that follow it closely: a client that asks often keeps its thread for a moment.

        The way through the poller and back to a thread costs more than a small answer. With few threads to spare every
        connection takes it.
        """
        kept = super().handle(conn)
        while kept is True and self.alive and self._given < self.cfg.threads // 2 and _asks_again(conn):
            kept = super().handle(conn)
        return kept

    def handle_request(self, req: Any, conn: TConn) -> bool:
        if isinstance(conn.sock, PatientSocket):
            conn.sock.be_patient()
        answered: bool = super().handle_request(req, conn)
        return answered

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """What no handler of ours came to see, in a body that clients of every dialect can read.

        The request itself, which may hold secrets, stays out of the log.
        """
        status, message = _refusal_of(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("the request failed outside of any handler: %s", type(exc).__name__, exc_info=exc)
        else:
            log.info("refused a request that is not HTTP as we speak it: %s", type(exc).__name__)
        error: dict[str, object] = {
            "code": "UNSUPPORTED" if status < 500 else "UNKNOWN",
            "message": message,
            "detail": {},
        }
        body = json.dumps({"error": message, "errors": [error]}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            client.sendall(head.encode() + (b"" if getattr(req, "method", "") == "HEAD" else body))

    def murder_pending(self) -> None:
        """Called by the loop once a turn, for what has had its time."""
        super().murder_pending()
        now = time.monotonic()
        while self._lingering:
            sock, linger = next(iter(self._lingering.items()))
            if linger.until > now and len(self._lingering) <= _LINGERERS_MAX:
                break
            self._part_with(sock)

    def _close(self, sock: socket.socket, graceful: bool = False) -> None:
        if not graceful or not _half_close(sock):
            sock.close()
            return
        self._lingering[sock] = Linger(time.monotonic() + LINGER_S)
        self.poller.register(sock, selectors.EVENT_READ, self._read_on)

    def _read_on(self, sock: socket.socket) -> None:
        """Read away what the peer still sends: closing over unread bytes resets, and it would lose our answer."""
        linger = self._lingering[sock]
        try:
            received = len(sock.recv(_PIECE))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        linger.left -= received
        if received == 0 or linger.left <= 0:
            self._part_with(sock)

    def _part_with(self, sock: socket.socket) -> None:
        del self._lingering[sock]
        self.poller.unregister(sock)
        sock.close()


_REFUSALS: Final[dict[type[BaseException], tuple[HTTPStatus, str]]] = {
    http_errors.LimitRequestLine: (HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long"),
    http_errors.LimitRequestHeaders: (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the header fields are too large"),
    http_errors.ExpectationFailed: (HTTPStatus.EXPECTATION_FAILED, "the only expectation is 100-continue"),
    http_errors.UnsupportedTransferCoding: (HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding is chunked"),
    http_errors.ParseException: (HTTPStatus.BAD_REQUEST, "the request is not well-formed HTTP/1.1"),
}


def _refusal_of(error: BaseException) -> tuple[HTTPStatus, str]:
    known = next((_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS), None)
    return known or (HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")


@dataclass(slots=True)
class Linger:
    """A connection that we have closed on our side. left: bytes that we are still willing to read away."""

    until: float
    left: int = 2**16


def _asks_again(conn: TConn) -> bool:
    if conn.is_http2 or conn.parser.unreader.buf.tell():
        return False
    readable = select.poll()
    readable.register(conn.sock, select.POLLIN)
    return bool(readable.poll(_NEXT_MS))


def _half_close(sock: socket.socket) -> bool:
    """Say that we are done; False if nobody is there to hear it."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    sock.setblocking(False)
    return True
