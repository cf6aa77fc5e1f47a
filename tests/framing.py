"""Where a message of HTTP/1.1 ends, for what passes it on as it is. Source: RFC 9112, "Message Body"."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol, Self

_MAX_HEAD = 64 * 1024


@dataclass(frozen=True)
class Head:
    """start: the request or status line. size: in bytes, with the empty line."""

    start: str
    headers: tuple[tuple[str, str], ...]
    size: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        start, *lines = raw[:-4].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(start, tuple((name.lower(), value.strip()) for name, _, value in pairs), len(raw))

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def value(self, name: str) -> str:
        return ", ".join(self.values(name))

    @property
    def keeps_alive(self) -> bool:
        asked = self.value("connection").lower()
        return asked != "close" and (self.start.endswith("HTTP/1.1") or asked == "keep-alive")

    @property
    def is_plain(self) -> bool:
        """A request whose end nobody can see elsewhere."""
        lengths, coding = self.values("content-length"), self.value("transfer-encoding")
        return (
            len(self.start.split(" ")) == 3
            and self.start.endswith(("HTTP/1.1", "HTTP/1.0"))
            and all(name and name == name.strip() for name, _ in self.headers)
            and len(lengths) <= 1
            and all(each.isascii() and each.isdigit() and len(each) < 20 for each in lengths)
            and (not coding or (coding.lower() == "chunked" and not lengths))
        )


def read_head(connection: socket.socket, came: bytes) -> tuple[bytes, Head | None]:
    """All that came, with a whole head at its start; and the head, or None for what is no plain request."""
    while (end := came.find(b"\r\n\r\n")) < 0 and len(came) < _MAX_HEAD:
        more = connection.recv(_MAX_HEAD)
        if not more:
            return came, None
        came += more
        if not came[:1].isalpha():  # TLS, from a client that tries that first: it waits for an answer now
            return came, None
    head = Head.parse(came[: end + 4]) if end >= 0 else None
    return came, head if head is not None and head.is_plain else None


class Body(Protocol):
    """is_whole: whether all of it was there."""

    is_whole: bool

    def take(self, data: bytes) -> int:
        """How many of the bytes that came next belong to it."""


class Sized:
    def __init__(self, size: int) -> None:
        self._left, self.is_whole = size, size == 0

    def take(self, data: bytes) -> int:
        taken = min(self._left, len(data))
        self._left -= taken
        self.is_whole = self._left == 0
        return taken


class Endless:
    """It ends with the connection."""

    is_whole = False

    def take(self, data: bytes) -> int:
        return len(data)


class Chunked:
    """Chunks, each with a line of its size before it; what is none is passed on for whoever judges it."""

    def __init__(self) -> None:
        self._left, self._line, self._is_last, self.is_whole = 0, b"", False, False

    def take(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self.is_whole:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                end = data.find(b"\n", at)
                step = (end + 1 if end >= 0 else len(data)) - at
                self._line += data[at : at + step]
                if end >= 0:
                    self._read(self._line.strip())
                    self._line = b""
            at += step
        return at

    def _read(self, line: bytes) -> None:
        if self._is_last:
            self.is_whole = not line  # else a trailer
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        self._is_last = size == 0
        self._left = size + 2 if size > 0 else 0 if size == 0 else 2**63


def body_of(head: Head, *, is_answer: bool | None = None) -> Body:
    """The body behind a request's head; is_answer: behind an answer's, and whether that has one."""
    if is_answer is False:
        return Sized(0)
    if head.value("transfer-encoding"):
        return Chunked()
    if length := head.value("content-length"):
        return Sized(int(length))
    return Endless() if is_answer else Sized(0)
