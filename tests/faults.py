"""What can go wrong between a client and a server, as a proxy does it to a request or to its answer."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from urllib.parse import urlsplit

from tests.exchange import PIECE, Dropped, Fault, Heard, Said

_HELD_S = 120.0  # nothing is held for longer


@dataclass
class Says(Fault):
    """An answer of the proxy's own."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def instead(self, heard: Heard) -> Said:
        return Said(self.status, headers=list(self.headers.items()), body=self.body)


@dataclass
class Redirects(Fault):
    """To the same path at another server."""

    to: str
    status: int = 307

    def instead(self, heard: Heard) -> Said:
        return Said(self.status, headers=[("Location", f"{self.to}{heard.target}")])


@dataclass
class Misleads(Fault):
    """A Location that names another server."""

    to: str

    def said(self, said: Said) -> Said:
        parts = urlsplit(said.header("Location"))
        return said.having("Location", f"{self.to}{parts.path}{'?' if parts.query else ''}{parts.query}")


@dataclass
class CutsAnswer(Fault):
    """After so many bytes of its body."""

    after: int

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        yield from _beginning(pieces, self.after)
        raise Dropped


@dataclass
class CutsRequest(Fault):
    """After so many bytes of its body."""

    after: int

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        yield from _beginning(pieces, self.after)
        raise Dropped


@dataclass
class Loses(Fault):
    """The answer, once the server has given it."""

    def said(self, said: Said) -> Said:
        raise Dropped


@dataclass
class Holds(Fault):
    """Both bodies, each after so many bytes of it, until `go` is set; with `for_good` off, what is held goes on then.

    is_held: set as soon as nothing moves any more.
    """

    after: int = 0
    for_good: bool = True
    is_held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._held(pieces)

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._held(pieces)

    def release(self) -> None:
        self.go.set()

    def _held(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        left = self.after
        for piece in pieces:
            yield piece[:left]
            if len(piece) > left:
                self.is_held.set()
                self.go.wait(_HELD_S)
                if self.for_good:
                    raise Dropped
                yield piece[left:]
            left = max(left - len(piece), 0)


@dataclass
class Gate(Fault):
    """Both bodies of all requests together, once that many bytes have passed; when it opens, it is none any more.

    What stood before it is dropped then. is_held: set as soon as one stands there.
    """

    after: int
    passed: int = 0
    is_held: threading.Event = field(default_factory=threading.Event)
    is_open: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._let_through(pieces)

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._let_through(pieces)

    def release(self) -> None:
        self.is_open.set()

    def _let_through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            with self._lock:
                is_closed = not self.is_open.is_set() and self.passed + len(piece) > self.after
                self.passed += 0 if is_closed else len(piece)
            if is_closed:
                self.is_held.set()
                self.is_open.wait(_HELD_S)
                raise Dropped
            yield piece


@dataclass
class Slows(Fault):
    """Both bodies, to so many bytes in a second."""

    rate: int
    _over: threading.Event = field(default_factory=threading.Event)

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._slowed(pieces)

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._slowed(pieces)

    def release(self) -> None:
        self._over.set()

    def _slowed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            for at in range(0, len(piece), PIECE // 8):
                part = piece[at : at + PIECE // 8]
                self._over.wait(len(part) / self.rate)
                yield part


@dataclass
class Flips(Fault):
    """One bit of the blob's byte `at`, once, whichever way it goes."""

    at: int
    has_flipped: bool = False

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._flipped(pieces, start)

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        return self._flipped(pieces, start)

    def _flipped(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        for piece in pieces:
            here = self.at - start
            start += len(piece)
            if 0 <= here < len(piece) and not self.has_flipped:
                self.has_flipped = True
                yield piece[:here] + bytes([piece[here] ^ 0x10]) + piece[here + 1 :]
            else:
                yield piece


@dataclass
class KnowsNoRanges(Fault):
    """A server that answers a Range with the whole blob."""

    def heard(self, heard: Heard) -> Heard:
        headers = Message()
        for name, value in heard.headers.items():
            if name.lower() not in {"range", "if-range"}:
                headers[name] = value
        return replace(heard, headers=headers)


@dataclass
class ShiftsRange(Fault):
    """A Content-Range that names other bytes than those that follow."""

    by: int = 1

    def said(self, said: Said) -> Said:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", said.header("Content-Range"))
        if match is None:
            return said
        first, last, size = map(int, match.groups())
        return said.having("Content-Range", f"bytes {first + self.by}-{last + self.by}/{size}")


@dataclass
class MisstatesLength(Fault):
    """A Content-Length that lies by so many bytes."""

    by: int

    def said(self, said: Said) -> Said:
        length = int(said.header("Content-Length")) + self.by
        return replace(said.having("Content-Length", str(length)), is_honest=False)


def _beginning(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    while size and (piece := next(pieces, b"")):
        yield piece[:size]
        size -= len(piece[:size])
