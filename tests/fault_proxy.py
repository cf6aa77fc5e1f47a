"""A reverse proxy on a loopback port, in front of any server, that fails where its rules tell it to.

`Host` is passed on as the client sent it: servers that build addresses from it build the proxy's own. What goes through
is counted, so that a test can say how much was sent again.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader

from tests.exchange import PIECE, Dropped, Fault, Heard, Said

_TIMEOUT_S = 90.0  # of any one read or write: nothing here outlives its test for long
_MAX_CONNECTIONS = 64
_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection"}


@dataclass
class Rule:
    """`fault` befalls `times` of the requests that match, after the first `skip` of them."""

    matches: Callable[[Heard], bool]
    fault: Fault
    times: int = 1
    skip: int = 0
    met: int = 0  # requests that it befell


@dataclass
class Traffic:
    """What one method at one path has cost. Bytes of bodies: up as the client sent them, down as it was sent them."""

    requests: int = 0
    up: int = 0
    down: int = 0


@dataclass
class FaultProxy:
    """A running proxy. `upstream` (host:port) may change: a server that was started again has another port."""

    upstream: str = ""
    host: str = ""
    rules: list[Rule] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._traffic: dict[tuple[str, str], Traffic] = defaultdict(Traffic)
        self._open: set[socket.socket] = set()
        self._faults: list[Fault] = []
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def when(self, matches: Callable[[Heard], bool], fault: Fault, *, times: int = 1, skip: int = 0) -> Rule:
        """A new rule; of several that match a request, the first befalls it."""
        rule = Rule(matches, fault, times, skip)
        with self._lock:
            self.rules.append(rule)
            self._faults.append(fault)
        return rule

    def traffic(self, method: str = "", path: str = "") -> Traffic:
        """Of all requests of that method to paths that contain `path`, together."""
        with self._lock:
            found = [each for key, each in self._traffic.items() if method in {"", key[0]} and path in key[1]]
            return Traffic(*(sum(getattr(each, name) for each in found) for name in ("requests", "up", "down")))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens here for a while: connections are refused, those that are open end."""
        self.close()
        try:
            yield
        finally:
            self.listen()

    def listen(self) -> None:
        """At the port that it had before, or any."""
        at = ("127.0.0.1", int(self.host.rpartition(":")[2] or 0))
        self._listener = listener = socket.create_server(at)
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._accept, args=(listener,), name="proxy", daemon=True).start()

    def close(self) -> None:
        """Refuse connections and end those that are open."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
            self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every open connection."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.close()
        self.release()

    def release(self) -> None:
        """Let go of whoever waits for a fault to end."""
        for fault in self._faults:
            fault.release()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                if not self._places.acquire(blocking=False):
                    connection.close()
                    continue
                connection.settimeout(_TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), name="proxied", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with (
                connection,
                connection.makefile("rb") as incoming,
                suppress(OSError, http.client.HTTPException, Dropped),
            ):
                while self._exchange(connection, incoming):
                    pass
        finally:
            with self._lock:
                self._open.discard(connection)
            self._places.release()

    def _exchange(self, connection: socket.socket, incoming: BufferedReader) -> bool:
        """One request and its answer; whether the connection can bear another."""
        heard = _read_head(incoming)
        if heard is None:
            return False
        with self._lock:
            self.heard.append(heard)
            traffic = self._traffic[heard.method, heard.path]
            traffic.requests += 1
            rule = next((each for each in self.rules if each.times and each.matches(heard)), None)
            if rule is not None and rule.skip:
                rule.skip -= 1
                rule = None
            if rule is not None:
                rule.times -= 1
                rule.met += 1
        return _Exchange(self.upstream, connection, incoming, heard, traffic).run(rule.fault if rule else Fault())


@dataclass
class _Exchange:
    """One request on its way to `upstream`, and the answer back."""

    upstream: str
    connection: socket.socket
    incoming: BufferedReader
    heard: Heard
    traffic: Traffic

    def run(self, fault: Fault) -> bool:
        said = fault.instead(self.heard)
        if said is not None:
            for _ in self._sent():
                pass
            return self._send(said, iter([said.body]), said.body)
        outgoing = http.client.HTTPConnection(self.upstream, timeout=_TIMEOUT_S)
        try:
            return self._pass_on(outgoing, fault)
        finally:
            outgoing.close()

    def _pass_on(self, outgoing: http.client.HTTPConnection, fault: Fault) -> bool:
        heard = fault.heard(self.heard)
        outgoing.putrequest(heard.method, heard.target, skip_host=True, skip_accept_encoding=True)
        for name, value in heard.headers.items():
            if name.lower() not in _OF_ONE_HOP:
                outgoing.putheader(name, value)
        outgoing.endheaders()
        is_whole = True
        try:
            for piece in fault.up(self._sent(), self.heard.start):
                outgoing.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            is_whole = False  # it may have answered before it hung up
        response = outgoing.getresponse()
        said = Said(response.status, response.reason, list(response.headers.items()))
        pieces = fault.down(_pieces_of(response), said.start)
        return self._send(fault.said(said), pieces, None) and is_whole

    def _sent(self) -> Iterator[bytes]:
        """The request's body."""
        left = int(self.heard.header("Content-Length") or 0)
        while left:
            piece = self.incoming.read1(min(PIECE, left))
            if not piece:
                raise Dropped
            left -= len(piece)
            self.traffic.up += len(piece)
            yield piece

    def _send(self, said: Said, pieces: Iterator[bytes], body: bytes | None) -> bool:
        """The answer to the client; whether its end can be told without closing the connection."""
        headers = [(name, value) for name, value in said.headers if name.lower() not in _OF_ONE_HOP]
        if body is not None:
            headers.append(("Content-Length", str(len(body))))
        has_length = any(name.lower() == "content-length" for name, _ in headers)
        is_last = not has_length and self.heard.method != "HEAD" and said.status not in {204, 304}
        if is_last:
            headers.append(("Connection", "close"))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.connection.sendall(f"HTTP/1.1 {said.status} {said.reason}\r\n{head}\r\n".encode("latin-1"))
        for piece in pieces:
            self.connection.sendall(piece)
            self.traffic.down += len(piece)
        return not is_last and said.is_honest


def _read_head(incoming: BufferedReader) -> Heard | None:
    line = incoming.readline(65537)
    parts = line.decode("latin-1").split()
    if len(parts) != 3:
        return None
    headers = http.client.parse_headers(incoming)
    return None if headers.get("Transfer-Encoding") else Heard(parts[0], parts[1], headers)


def _pieces_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read1(PIECE):
        yield piece


@contextmanager
def fault_proxy(upstream: str = "") -> Iterator[FaultProxy]:
    """A proxy to `upstream` (host:port); it ends with the block, whatever is under way."""
    proxy = FaultProxy(upstream)
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.stop()
