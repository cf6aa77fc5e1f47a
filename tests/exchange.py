"""A request and its answer on their way through a proxy, and the fault that befalls them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message

PIECE = 64 * 1024
_FIRST = re.compile(r"(?:bytes )?(\d+)-(\d+)")


class Dropped(Exception):
    """The connection ends without a further word."""


@dataclass(frozen=True)
class Heard:
    """A request, without its body."""

    method: str
    target: str
    headers: Message

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def start(self) -> int:
        """The blob's byte that the body begins with."""
        return _first(self.header("Content-Range"))

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def wants(self, byte: int) -> bool:
        """Whether the answer, to a Range or to none, would have this byte of the blob."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.header("Range"))
        return match is None or int(match[1]) <= byte <= int(match[2] or byte)


@dataclass(frozen=True)
class Said:
    """An answer; `body` is for those that no server gave. With `is_honest` off, its length is not to be trusted."""

    status: int
    reason: str = "-"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    is_honest: bool = True

    @property
    def start(self) -> int:
        """The blob's byte that the body begins with."""
        return _first(self.header("Content-Range"))

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def having(self, name: str, value: str) -> Said:
        kept = [(key, each) for key, each in self.headers if key.lower() != name.lower()]
        return replace(self, headers=[*kept, (name, value)])


def _first(content_range: str) -> int:
    match = _FIRST.match(content_range)
    return int(match[1]) if match else 0


class Fault:
    """None: each part of an exchange goes through as it is. Positions are those in the blob, not in the body."""

    def instead(self, heard: Heard) -> Said | None:
        """An answer without the server."""
        return None

    def heard(self, heard: Heard) -> Heard:
        return heard

    def up(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        """The request's body. Raises Dropped."""
        return pieces

    def said(self, said: Said) -> Said:
        return said

    def down(self, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
        """The answer's body. Raises Dropped."""
        return pieces

    def release(self) -> None:
        """Let go of whoever waits here."""
