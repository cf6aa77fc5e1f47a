"""Many connections at once: readers that stand still keep nobody else from being served."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from storage.digest import Digest
from tests.client import Client
from tests.server import Server, running_server

BLOB = os.urandom(16 * 2**20)  # more than the kernel buffers for a reader who does not read
STALLED, AT_ONCE = 100, 200  # the server's threads: 2 workers of 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("many") / "data", {"TONNAGE_ACCESS": "open"}) as running:
        client = Client(running.host)
        client.push_blob("team/model", BLOB)
        client.push_blob("team/model", b"small")
        yield running


def stalled_reader(server: Server, stack: ExitStack) -> socket.socket:
    """A download whose client has read the first bytes and then nothing."""
    host, port = server.host.split(":")
    reader = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    path = f"/v2/team/model/blobs/{Digest.of(BLOB)}"
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
    assert reader.recv(12) == b"HTTP/1.1 200"
    return reader


def test_others_are_served_beside_readers_that_stand_still(server: Server) -> None:
    def fetch(_: int) -> bytes:
        return Client(server.host).request("GET", f"/v2/team/model/blobs/{Digest.of(b'small')}").body

    with ExitStack() as stack, ThreadPoolExecutor(32) as clients:
        for _ in range(STALLED):
            stalled_reader(server, stack)

        assert set(clients.map(fetch, range(AT_ONCE))) == {b"small"}


def test_more_connections_than_threads_all_get_their_answer(server: Server) -> None:
    host, port = server.host.split(":")
    path = f"/v2/team/model/blobs/{Digest.of(b'small')}"
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(AT_ONCE)]
        for client in clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n\r\n".encode())
        for client in clients:
            answer = b""
            while piece := client.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\nsmall")
