"""A client that costs little: raw sockets, uploads by sendfile from the page cache, downloads into one reused buffer.

On a machine of two cores a client that works hard would measure itself.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

Sink = Callable[[memoryview], object]

_TIMEOUT_S: Final = 120.0  # of a socket that stands still
_BUFFER_BYTES: Final = 512 * 2**10
_HEAD_MAX: Final = 64 * 2**10
_ANSWER_MAX: Final = 8 * 2**20
_CHUNK_BYTES: Final = 32 * 2**10  # what Go's client, and so docker, makes of a body of unknown length
_TAIL_BYTES: Final = 64
OCTETS: Final = "application/octet-stream"


class LoadError(Exception):
    """A server answered something else than the benchmark needs; nothing measured so far counts."""


def measure(main: Callable[[], None]) -> None:
    """Run a benchmark; told to end, it ends its servers and removes its folder, too."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except LoadError as error:
        raise SystemExit(f"not measured: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def require(self, *statuses: int) -> Self:
        """Raises LoadError for any other status."""
        if self.status not in statuses:
            raise LoadError(f"answered {self.status}, not {statuses}: {self.body[:300]!r}")
        return self

    @property
    def target(self) -> str:
        """Path and query of the Location, absolute or not."""
        parts = urlsplit(self.headers["location"])
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Connection:
    """One keep-alive connection to one server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._host = f"{address[0]}:{address[1]}"
        self._socket = socket.create_connection(address, _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """One request with a body that is at hand, and its whole answer."""
        sized = {"Content-Length": str(len(body)), **headers} if body or method not in ("GET", "HEAD") else headers
        self._socket.sendall(self._head(method, target, sized) + body)
        return self.answer(has_body=method != "HEAD")

    def be_patient_for(self, seconds: float) -> None:
        """How long the other side may stand still from now on."""
        self._socket.settimeout(seconds)

    def begin(self, method: str, target: str, **headers: str) -> None:
        """The head of a request whose body follows."""
        self._socket.sendall(self._head(method, target, headers))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_file(self, descriptor: int, size: int, *, start: int = 0) -> None:
        """`size` bytes from `start` of the file on, without a copy through this process."""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            if self._socket.sendfile(file, start, size) != size:
                raise LoadError("the file to send is too short")

    def answer(self, *, has_body: bool = True) -> Answer:
        status, headers = self._read_head()
        if not has_body or status in (204, 304):
            return Answer(status, headers)
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._read_chunks())
        return Answer(status, headers, self._take(int(headers.get("content-length", "0"))))

    def download(self, target: str, *, sink: Sink | None = None, **headers: str) -> int:
        """GET a body of any length and drop it, or show it to `sink` piece by piece; its size."""
        self.begin("GET", target, **headers)
        return self.drain(self.head().require(206 if "Range" in headers else 200), sink=sink)

    def head(self) -> Answer:
        """Status and headers of the answer; its body is still to come."""
        return Answer(*self._read_head())

    def drain(self, answer: Answer, *, sink: Sink | None = None) -> int:
        """The body after `head`, dropped or shown to `sink`; its size."""
        size = int(answer.headers["content-length"])
        left = size - len(self._rest)
        if sink is not None:
            sink(memoryview(self._rest))
        self._rest = b""
        while left > 0:
            got = self._socket.recv_into(self._buffer)
            if got == 0:
                raise LoadError(f"the body ended {left} bytes early")
            if sink is not None:
                sink(self._buffer[:got])
            left -= got
        if left < 0:
            raise LoadError("the body is longer than its Content-Length")
        return size

    def _head(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _read_head(self) -> tuple[int, dict[str, str]]:
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _HEAD_MAX:
                raise LoadError("the answer's head has no end")
            data += self._receive()
        self._rest = data[end + 4 :]
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in fields}

    def _read_chunks(self) -> bytes:
        """A body of unknown length, as long answers of models have; trailers are none of ours to expect."""
        body = b""
        while size := int(self._read_line(), 16):
            if len(body) + size > _ANSWER_MAX:
                raise LoadError("the answer has no end")
            body += self._take(size)
            self._read_line()
        self._read_line()
        return body

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > _HEAD_MAX:
                raise LoadError("a line of the answer has no end")
            self._rest += self._receive()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _take(self, size: int) -> bytes:
        """So many bytes of the answer."""
        if size > _ANSWER_MAX:
            raise LoadError("the answer is too long")
        while len(self._rest) < size:
            self._rest += self._receive()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _receive(self) -> bytes:
        data = self._socket.recv(_HEAD_MAX)
        if not data:
            raise LoadError("the server closed the connection")
        return data


@dataclass(frozen=True, slots=True)
class Body:
    """A blob nobody has sent before: the source's bytes and a tail of its own."""

    digest: str
    tail: bytes


class Source:
    """`size` random bytes as a file in the page cache, bare and as a chunked body is framed.

    Every `fresh` body ends in other bytes, so its digest is new to every server although only the end is.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._common = size - _TAIL_BYTES
        self._hash = hashlib.sha256()
        self._bare = os.open(folder / "bare", os.O_RDWR | os.O_CREAT, 0o600)
        self._framed = os.open(folder / "framed", os.O_RDWR | os.O_CREAT, 0o600)
        self._framed_size = 0
        for start in range(0, self._common, _CHUNK_BYTES):
            block = os.urandom(min(_CHUNK_BYTES, self._common - start))
            self._hash.update(block)
            os.write(self._bare, block)
            self._framed_size += os.write(self._framed, _framed(block))

    def close(self) -> None:
        os.close(self._bare)
        os.close(self._framed)

    def warm(self) -> None:
        """Read all of it, should some have left the page cache."""
        buffer = bytearray(_BUFFER_BYTES)
        for descriptor in (self._bare, self._framed):
            offset = 0
            while got := os.preadv(descriptor, [buffer], offset):
                offset += got

    def fresh(self) -> Body:
        tail, hasher = os.urandom(_TAIL_BYTES), self._hash.copy()
        hasher.update(tail)
        return Body(f"sha256:{hasher.hexdigest()}", tail)

    def put(self, connection: Connection, repository: str, body: Body) -> None:
        """POST, then everything in the closing PUT."""
        target = connection.request("POST", f"/v2/{repository}/blobs/uploads/").require(202).target
        length = str(self.size)
        connection.begin("PUT", with_digest(target, body.digest), Content_Length=length, Content_Type=OCTETS)
        connection.send_file(self._bare, self._common)
        connection.send(body.tail)
        connection.answer().require(201)

    def send(self, connection: Connection, body: Body, start: int, size: int) -> None:
        """A range of the bytes, as the body of a request that was begun."""
        if (common := min(size, self._common - start)) > 0:
            connection.send_file(self._bare, common, start=start)
        if (end := start + size - self._common) > 0:
            connection.send(body.tail[max(0, start - self._common) : end])

    def patch(self, connection: Connection, repository: str, body: Body) -> None:
        """POST, PATCH of a chunked body, PUT without one: docker's way."""
        target = connection.request("POST", f"/v2/{repository}/blobs/uploads/").require(202).target
        connection.begin("PATCH", target, Transfer_Encoding="chunked", Content_Type=OCTETS)
        connection.send_file(self._framed, self._framed_size)
        connection.send(_framed(body.tail) + b"0\r\n\r\n")
        target = connection.answer().require(202).target
        connection.request("PUT", with_digest(target, body.digest)).require(201)


def with_digest(target: str, digest: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}digest={digest}"


def _framed(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block)


def together(count: int, job: Callable[[int], object]) -> None:
    """`job(0)` … `job(count - 1)` at once, each in a thread; raises what any of them raises."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(job, range(count)))
