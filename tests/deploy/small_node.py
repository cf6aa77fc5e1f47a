"""Nodes in this process that say what reached them, and go wrong where a test asks for it."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 64 * 2**10


@dataclass(frozen=True)
class Heard:
    """A request that reached a node."""

    method: str
    target: str
    headers: Message
    size: int  # of its body


@dataclass
class SmallNode:
    """act: what it does with a request other than a health check; None answers with the node's name."""

    name: str
    host: str = ""
    heard: list[Heard] = field(default_factory=list)
    received: int = 0  # bytes of bodies, counted as they come
    act: Callable[[Exchange], None] | None = None
    sends_on: bool = False  # whatever comes, before its body is here

    def __post_init__(self) -> None:
        self.connections: set[socket.socket] = set()

    def forget(self) -> None:
        """As if it were new."""
        self.heard, self.received, self.act, self.sends_on = [], 0, None, False


class Exchange(BaseHTTPRequestHandler):
    """One request at a node."""

    protocol_version = "HTTP/1.1"
    node: SmallNode

    def answer(self, status: int = 200, body: bytes | None = None, **headers: str) -> None:
        """headers: with underscores in place of dashes."""
        data = json.dumps({"node": self.node.name}).encode() if body is None else body
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def drop(self) -> None:
        """Close without a word."""
        self.close_connection = True

    def sees_the_end(self, timeout_s: float) -> bool:
        """Wait for the peer to close, or to reset, the connection."""
        if not select.select([self.connection], [], [], timeout_s)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return True

    def read_body(self) -> int:
        """Read the body, sized or chunked; its size."""
        before = self.node.received
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                self._read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self._read(int(self.headers.get("Content-Length", "0")))
        return self.node.received - before

    def _read(self, left: int) -> None:
        while left > 0:
            data = self.rfile.read1(min(left, _PIECE))
            if not data:
                raise ConnectionError("the body ended before its end")
            left -= len(data)
            self.node.received += len(data)

    def _send_on(self) -> None:
        """Answer at once, and read away what still comes."""
        self.node.heard.append(Heard(self.command, self.path, self.headers, 0))
        self.answer(307, b"", Location="http://bucket.test/part")
        with suppress(ConnectionError):
            self.read_body()
        self.drop()

    def setup(self) -> None:
        super().setup()
        self.node.connections.add(self.connection)

    def finish(self) -> None:
        self.node.connections.discard(self.connection)
        super().finish()

    def _handle(self) -> None:
        if self.path == "/healthz":
            with suppress(ConnectionError):  # HAProxy resets what it has read the status of
                self.answer(body=b"ok")
            return
        if self.node.sends_on:
            self._send_on()
            return
        size = self.read_body()
        self.node.heard.append(Heard(self.command, self.path, self.headers, size))
        (self.node.act or Exchange.answer)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def small_node(name: str) -> Iterator[SmallNode]:
    """A node that runs for as long as the block."""
    node = SmallNode(name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Exchange,), {"node": node}))
    server.daemon_threads = True
    node.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(node.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
