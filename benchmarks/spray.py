"""Pushes and pulls over several nodes, each request to another one; and clients that go where they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final
from urllib.parse import urlsplit

from load import OCTETS, Body, Connection, LoadError, Sink, Source, together, with_digest
from peers import Server

REPOSITORY: Final = "bench/weights"
_UPLOADS: Final = f"/v2/{REPOSITORY}/blobs/uploads/"
_AGENT: Final = "docker/28.0"  # one that is known to follow
PARTS_AT_ONCE: Final = 4

Push = Callable[["Fleet", Source, Body], None]
Pull = Callable[["Fleet", str, Sink | None], int]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers that hold the same, and how bytes go in and out."""

    name: str
    servers: tuple[Server, ...]
    push: Push
    pull: Pull
    _turn: Iterator[int] = field(default_factory=count)

    def connect(self) -> Connection:
        """To the next one in turn."""
        return self.servers[next(self._turn) % len(self.servers)].connect()

    def cpu_s(self) -> float:
        return sum(server.cpu_s() for server in self.servers)

    def peak_bytes(self) -> int:
        """Of the web worker that had the most; of a server without workers, its own."""
        peaks = [server.peak_bytes("registry.workers") or server.peak_bytes() for server in self.servers]
        return max(max(each) for each in peaks)


def push(fleet: Fleet, source: Source, body: Body) -> None:
    """POST to one node, PUT to the next."""
    with fleet.connect() as connection:
        target = connection.request("POST", _UPLOADS).require(202).target
    with fleet.connect() as connection:
        length = {"Content_Length": str(source.size), "Content_Type": OCTETS}
        connection.begin("PUT", with_digest(target, body.digest), **length)
        source.send(connection, body, 0, source.size)
        connection.answer().require(201)


def push_parts(fleet: Fleet, source: Source, body: Body) -> None:
    """Parts that the nodes send on to the object store, some at once, as the ollama client does."""
    with fleet.connect() as connection:
        target = connection.request("POST", _UPLOADS).require(202).target
    size = -(-source.size // PARTS_AT_ONCE)
    ranges = [(start, min(size, source.size - start)) for start in range(0, source.size, size)]
    addresses = list[str]()
    for start, length in ranges:
        with fleet.connect() as connection:
            told = {"Content_Range": f"{start}-{start + length - 1}", "X_Redirect_Uploads": "1"}
            connection.begin("PATCH", target, Content_Length=str(length), Content_Type=OCTETS, **told)
            addresses.append(connection.answer().require(307).headers["location"])
    together(len(ranges), lambda number: put_at(addresses[number], source, body, *ranges[number]))
    with fleet.connect() as connection:
        connection.request("PUT", with_digest(target, body.digest)).require(201)


def put_at(url: str, source: Source, body: Body, start: int, size: int) -> str:
    """A range of the bytes to a signed address; what the store calls them."""
    address, target = place(url)
    with Connection(address) as connection:
        connection.begin("PUT", target, Content_Length=str(size), Content_Type=OCTETS)
        source.send(connection, body, start, size)
        return connection.answer().require(200).headers["etag"]


def pull(fleet: Fleet, digest: str, sink: Sink | None = None) -> int:
    """A whole blob, from wherever it is to be had; its size."""
    with fleet.connect() as connection:
        target = f"/v2/{REPOSITORY}/blobs/{digest}"
        connection.begin("GET", target, User_Agent=_AGENT)
        answer = connection.head()
        if answer.status != 307:
            return connection.drain(answer.require(200), sink=sink)
    address, target = place(answer.headers["location"])
    with Connection(address) as connection:
        return connection.download(target, sink=sink)


def check(fleet: Fleet, digest: str) -> None:
    """Raises LoadError when other bytes come back than `digest` names."""
    hasher = hashlib.sha256()
    fleet.pull(fleet, digest, hasher.update)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise LoadError(f"{fleet.name} serves other bytes than were pushed")


def place(url: str) -> tuple[tuple[str, int], str]:
    parts = urlsplit(url)
    return (parts.hostname or "", parts.port or 80), f"{parts.path}?{parts.query}"
