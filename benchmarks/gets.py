"""Requests per second of one GET over many keep-alive connections: by wrk, or where that is missing by a small loop."""

from __future__ import annotations

import re
import select
import shutil
import socket
import subprocess
import time
from typing import Final

from load import Connection, LoadError

_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_FAILURE: Final = re.compile(r"^\s*(Non-2xx.*|Socket errors.*)$", re.MULTILINE)
_STALL_S: Final = 30.0


def client() -> str:
    """What `get_rate` uses on this machine."""
    return "wrk -t1" if shutil.which("wrk") else "a Python loop over epoll (wrk is not installed)"


def get_rate(address: tuple[str, int], target: str, accept: str, *, connections: int, seconds: int) -> float:
    """Requests per second. Raises LoadError for an answer that is not 200 (not 2xx, by wrk)."""
    rate = _by_wrk if shutil.which("wrk") else _by_polling
    return rate(address, target, accept, connections, seconds)


def _by_wrk(address: tuple[str, int], target: str, accept: str, connections: int, seconds: int) -> float:
    url = f"http://{address[0]}:{address[1]}{target}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Accept: {accept}", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate, failure = _RATE.search(text), _FAILURE.search(text)
    if rate is None or failure is not None:
        raise LoadError(f"wrk: {failure[1] if failure else text[:300]}")
    return float(rate[1])


def _by_polling(address: tuple[str, int], target: str, accept: str, connections: int, seconds: int) -> float:
    """One request under way on each connection; lengths are counted, headers of the answers not read."""
    with Connection(address) as probe:
        answer = probe.request("GET", target, Accept=accept).require(200)
    request = f"GET {target} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nAccept: {accept}\r\n\r\n".encode()
    sockets = [socket.create_connection(address, _STALL_S) for _ in range(connections)]
    left = dict.fromkeys((each.fileno() for each in sockets), 0)
    by_fd = {each.fileno(): each for each in sockets}
    done, start = 0, time.perf_counter()
    try:
        with select.epoll() as poll:
            for each in sockets:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(each, select.EPOLLIN)
                each.sendall(request)
            while (now := time.perf_counter()) - start < seconds:
                ready = poll.poll(_STALL_S)
                if not ready:
                    raise LoadError("no answer in time")
                for fd, _ in ready:
                    left[fd] = _still_missing(by_fd[fd].recv(2**16), left[fd], len(answer.body))
                    if left[fd] == 0:
                        done += 1
                        by_fd[fd].sendall(request)
    finally:
        for each in sockets:
            each.close()
    return done / (now - start)


def _still_missing(data: bytes, left: int, size: int) -> int:
    """Bytes of the answer that `data` did not bring. An answer's head comes in one piece from any server in use."""
    if left == 0:
        head = data.find(b"\r\n\r\n")
        if not data.startswith(b"HTTP/1.1 200 ") or head < 0:
            raise LoadError(f"answered {data[:60]!r}")
        left = head + 4 + size
    if len(data) > left or not data:
        raise LoadError("an answer of another length")
    return left - len(data)
