"""What no server can pass here: the kernel alone, sending one file to the same clients, with nothing of HTTP to do."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from load import Connection, LoadError, together

_PIECE: Final = 8 * 2**20


def sendfile_rate(path: Path, clients: int) -> float:
    """MiB/s of a bare sendfile loop, a process for each of `clients` at once."""
    size = path.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
        servers = [_fork(listener, path) for _ in range(clients)]
        try:
            start = time.perf_counter()
            together(clients, lambda _: _download(address, size))
            seconds = time.perf_counter() - start
        finally:
            for pid in servers:
                os.kill(pid, signal.SIGKILL)  # one whose client failed would wait for ever
                os.waitpid(pid, 0)
    return clients * size / 2**20 / seconds


def _download(address: tuple[str, int], size: int) -> None:
    with Connection(address) as connection:
        if connection.download("/") != size:
            raise LoadError("the bare loop sent another length")


def _fork(listener: socket.socket, path: Path) -> int:
    """A child that answers one request. It is killed by its parent, which therefore always finds it."""
    pid = os.fork()
    if pid == 0:
        try:
            _serve_one(listener, path)
        finally:
            signal.pause()
    return pid


def _serve_one(listener: socket.socket, path: Path) -> None:
    stream, _ = listener.accept()
    with stream, path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        stream.recv(2**16)
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0
        while sent < size:
            sent += os.sendfile(stream.fileno(), file.fileno(), sent, min(_PIECE, size - sent))


if __name__ == "__main__":
    for number in (1, 4):
        print(f"{number} at once: {sendfile_rate(Path(sys.argv[1]), number):.0f} MiB/s")
