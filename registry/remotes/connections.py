"""Connections that go where a `Reach` lets them, answer within a time, and can be cut from another thread."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final
from weakref import WeakSet

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

from registry.remotes.errors import Stalled
from registry.remotes.reach import Reach

_MAX_TRAILERS: Final = 32
_MAX_TRAILER: Final = 8192


class Live:
    """The connections of one client that are open, from whatever thread. within: a client that they end with too."""

    def __init__(self, within: Live | None = None) -> None:
        self._within = within
        self._connections: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False

    def add(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._is_cut:
                cut(connection)
        if self._within is not None:
            self._within.add(connection)

    def cut(self) -> None:
        """End them all, and every later one: whoever reads or writes there gets an error."""
        with self._lock:
            self._is_cut = True
            for connection in self._connections:
                cut(connection)


def cut(connection: HTTPConnection) -> None:
    sock = getattr(connection, "wire", None)
    if isinstance(sock, socket.socket):
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own: it would drop what another thread uses


class _Response(http.client.HTTPResponse):
    """An answer whose body ends: what may follow the last chunk has no bound in the standard library."""

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MAX_TRAILERS):
            line = self.fp.readline(_MAX_TRAILER + 1)
            if len(line) > _MAX_TRAILER:
                raise http.client.LineTooLong("trailer line")
            if line in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException(f"more than {_MAX_TRAILERS} trailers")


class _Bounded(HTTPConnection):
    """What both kinds of connection have."""

    response_class = _Response
    live: ClassVar[Live]
    reach: ClassVar[Reach | None] = None
    wire: Any = None  # `sock` is let go of as soon as an answer says that the connection ends with it

    def connect(self) -> None:
        super().connect()
        self.wire = self.sock
        self.live.add(self)

    def getresponse(self) -> Any:
        """The head of the answer, whole within the time that its first byte may take: it cannot come in drips."""
        limit_s = self.timeout if isinstance(self.timeout, int | float) else None
        if limit_s is None:
            return super().getresponse()
        with _limited(self, limit_s):
            return super().getresponse()

    def _new_conn(self) -> socket.socket:
        if self.reach is None:
            return super()._new_conn()
        error: OSError | None = None
        for address in self.reach.addresses(self.host, self.port):
            try:
                return create_connection((address, self.port), self.timeout, socket_options=self.socket_options)
            except OSError as refused:
                error = refused
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(self, "timed out") from error
        raise NewConnectionError(self, str(error)) from error


@contextmanager
def _limited(connection: HTTPConnection, seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer. Raises Stalled then."""
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        cut(connection)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if not is_late.is_set():
            raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise Stalled(f"{connection.host}:{connection.port} took longer than {seconds:.0f} s to begin its answer")


def pools_within(reach: Reach | None, live: Live) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes, by scheme, for urllib3's manager. reach: None for wherever the user of a command wants to go."""

    class Plain(_Bounded):
        pass

    class Secure(_Bounded, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    for kind in (Plain, Secure):
        kind.reach, kind.live = reach, live
    return {"http": PlainPool, "https": SecurePool}
