"""A balancer on a loopback port that hands each request to a server drawn at random, also those of one connection.

What is sent passes as it is, byte for byte; what cannot be told apart into requests goes to one server until it ends.
"""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.framing import Body, Endless, Head, body_of, read_head

_TIMEOUT_S = 90.0  # of any one read or write: nothing here outlives its test for long
_MAX_CONNECTIONS = 256
_PIECE = 256 * 1024


@dataclass
class Sprayer:
    """A running balancer. servers: host:port of each; one that does not answer is passed over.

    drawn: how many requests each server got.
    """

    servers: list[str]
    seed: int
    host: str = ""
    drawn: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_MAX_CONNECTIONS)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="sprayer", daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and end those that are open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if not self._places.acquire(blocking=False):
                    connection.close()
                    continue
                _prepare(connection)
                with self._lock:
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), name="sprayed", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                left = b""
                while left is not None:
                    left = self._exchange(connection, left)
        finally:
            with self._lock:
                self._open.discard(connection)
            self._places.release()

    def _exchange(self, client: socket.socket, came: bytes) -> bytes | None:
        """One request and its answer; what came after it, or None when the connection can bear no other."""
        came, head = read_head(client, came)
        if not came:
            return None
        with self._draw() as server:
            return _Exchange(client, server, head).run(came)

    def _draw(self) -> socket.socket:
        """A connection to one of the servers. Raises ConnectionError when none answers."""
        with self._lock:
            order = self._random.sample(self.servers, len(self.servers))
        for each in order:
            host, _, port = each.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
            except ConnectionError:
                continue
            _prepare(server)
            with self._lock:
                self.drawn[each] = self.drawn.get(each, 0) + 1
            return server
        raise ConnectionRefusedError("no server answers")


class _Exchange:
    """One request on its way to `server`, and the answer back. head: None where nothing can be told of what came."""

    def __init__(self, client: socket.socket, server: socket.socket, head: Head | None) -> None:
        self._client, self._server, self._head = client, server, head
        self._sent: Body = body_of(head) if head is not None else Endless()
        self._answer = b""
        self._body: Body | None = None if head is not None else Endless()
        self._is_last = head is None or not head.keeps_alive
        self._is_heard = True

    def run(self, came: bytes) -> bytes | None:
        size = self._head.size if self._head is not None else 0
        self._server.sendall(came[:size])
        left = self._pass_up(came[size:])
        while self._body is None or not self._body.is_whole:
            listened = [self._server, *([self._client] if self._is_heard and not self._sent.is_whole else [])]
            ready, _, _ = select.select(listened, [], [], _TIMEOUT_S)
            if not ready:
                return None
            if self._client in ready:
                left = self._pass_up(self._heard())
            if self._server in ready and not self._pass_down(self._server.recv(_PIECE)):
                return None
        return None if self._is_last or not self._sent.is_whole else left

    def _heard(self) -> bytes:
        came = self._client.recv(_PIECE)
        if not came:
            self._is_heard = False
            self._server.shutdown(socket.SHUT_WR)
        return came

    def _pass_up(self, came: bytes) -> bytes:
        """The request's body; what came behind it."""
        size = self._sent.take(came)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it hung up
            self._server.sendall(came[:size])
        return came[size:]

    def _pass_down(self, came: bytes) -> bool:
        """The answer; False at its end, where only that ends it."""
        if not came:
            return False
        while self._body is None:
            self._answer += came
            end = self._answer.find(b"\r\n\r\n")
            if end < 0:
                return True
            head, came = self._answer[: end + 4], self._answer[end + 4 :]
            self._client.sendall(head)
            self._answer = b""
            self._read_answer(Head.parse(head))
            if self._body is None and not came:
                return True
        if came:
            self._client.sendall(came[: self._body.take(came)])
        return True

    def _read_answer(self, head: Head) -> None:
        assert self._head is not None
        status = int(head.start.split()[1])
        if status < 200:
            return
        self._is_last |= head.value("connection").lower() == "close"
        has_body = self._head.start.split()[0] != "HEAD" and status not in {204, 304}
        self._body = body_of(head, is_answer=has_body)


def _prepare(connection: socket.socket) -> None:
    connection.settimeout(_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def sprayer(servers: list[str], seed: int) -> Iterator[Sprayer]:
    """A balancer in front of `servers` (host:port); it ends with the block, whatever is under way."""
    front = Sprayer(servers, seed)
    print(f"requests are sprayed with the seed {seed}")
    try:
        yield front
    finally:
        front.stop()
