"""What is measured: each row is a function that has one server do its work once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ceiling import sendfile_rate
from gets import get_rate
from load import OCTETS, Body, Connection, LoadError, Source, together, with_digest
from peers import Server

Send = Callable[[Source, Connection, str, Body], None]
Measure = Callable[["Bench", Server], "Work"]

_REPOSITORY: Final = "bench/weights"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYERS: Final = 4
_TAGGED: Final = f"/v2/{_REPOSITORY}/manifests/v1"
_GETS_S: Final = 5
_BLOCK: Final = bytes(2**20)
SMALL_BLOBS: Final = 1000
SMALL_BYTES: Final = 4096
SMALL_CLIENTS: Final = 4
GET_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Work:
    """What a server did: how many units, in which time, and what its processes used of the processors."""

    units: float
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.units / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor time of one unit: what neighbours on a shared machine change least."""
        return self.cpu_s / self.units * 1000


class Working(Protocol):
    """One or more servers."""

    def cpu_s(self) -> float: ...


def work(server: Working, units: float, clients: int, job: Callable[[int], object]) -> Work:
    """Time `job(0)` … `job(clients - 1)` at once."""
    cpu_s, start = server.cpu_s(), time.perf_counter()
    together(clients, job)
    seconds = time.perf_counter() - start
    return Work(units, seconds, server.cpu_s() - cpu_s)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `at_least`: the ratio that we build for."""

    name: str
    title: str
    unit: str
    at_least: float
    measure: Measure


@dataclass(slots=True)
class Bench:
    """What all rows share. `pulled` is the blob that every server holds."""

    source: Source
    scratch: Path
    pulled: Body
    _checked: set[tuple[str, str]] = field(default_factory=set)

    def prepare(self, server: Server) -> None:
        """Push what is going to be pulled, and check that the server gives it back."""
        with server.connect() as connection:
            self.source.put(connection, _REPOSITORY, self.pulled)
            _push_manifest(connection)
        check_digest(server, self.pulled.digest)

    def check(self, server: Server, row: str, bodies: list[Body]) -> None:
        """The length of everything that was pushed; once for a row and server, the bytes of one."""
        with server.connect() as connection:
            for body in bodies:
                answer = connection.request("HEAD", blob(body.digest)).require(200)
                if int(answer.headers["content-length"]) != self.source.size:
                    raise LoadError("a pushed blob has another length")
        if (server.name, row) not in self._checked:
            self._checked.add((server.name, row))
            check_digest(server, bodies[0].digest)

    def disk_rate(self) -> float:
        """MiB/s of writing one blob's worth to a file and waiting for the disk."""
        prime(self.scratch, self.source.size)
        path, start = self.scratch / "disk", time.perf_counter()
        _write(path, self.source.size)
        seconds = time.perf_counter() - start
        path.unlink()
        return self.source.size / 2**20 / seconds

    def sendfile_rate(self, clients: int) -> float:
        """MiB/s of the kernel alone, sending a file of a blob's size from the page cache to as many clients."""
        self.source.warm()
        return sendfile_rate(self.scratch / "bare", clients)


def blob(digest: str) -> str:
    return f"/v2/{_REPOSITORY}/blobs/{digest}"


def check_digest(server: Server, digest: str) -> None:
    """Raises LoadError when the server gives other bytes than `digest` names."""
    hasher = hashlib.sha256()
    with server.connect() as connection:
        connection.download(blob(digest), sink=hasher.update)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise LoadError(f"{server.name} serves other bytes than were pushed")


def prime(folder: Path, size: int) -> None:
    """Fill as much page cache as is about to be written, and free it.

    A virtual machine often pays for a page of memory when it is first used, ten times what the copy costs; whoever
    came first would pay.
    """
    path = folder / "prime"
    _write(path, size, sync=False)
    path.unlink()


def _write(path: Path, size: int, *, sync: bool = True) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(max(1, size // len(_BLOCK))):
            file.write(_BLOCK)
        if sync:
            os.fsync(file)


def push(name: str, send: Send, clients: int) -> Measure:
    """MiB of `clients` at once, each with a blob of its own; session, bytes and commit."""

    def measure(bench: Bench, server: Server) -> Work:
        bodies = [bench.source.fresh() for _ in range(clients)]
        before = server.large_files()
        bench.source.warm()
        prime(bench.scratch, clients * bench.source.size)

        def one(number: int) -> None:
            with server.connect() as connection:
                send(bench.source, connection, _REPOSITORY, bodies[number])

        done = work(server, clients * bench.source.size / 2**20, clients, one)
        bench.check(server, name, bodies)
        for path in server.large_files() - before:  # behind the server's back: nobody asks for these again
            path.unlink()
        os.sync()  # what one server left to the disk must not slow the other
        return done

    return measure


def pull(clients: int) -> Measure:
    """MiB of `clients` at once, each taking the whole of the same blob."""

    def measure(bench: Bench, server: Server) -> Work:
        _pull(server, bench.pulled, bench.source.size)  # into the page cache, should it have left it
        mib = clients * bench.source.size / 2**20
        return work(server, mib, clients, lambda _: _pull(server, bench.pulled, bench.source.size))

    return measure


def pull_ranges(parts: int) -> Measure:
    """MiB of one blob in `parts` equal ranges at once, a connection each."""

    def measure(bench: Bench, server: Server) -> Work:
        size = bench.source.size // parts

        def one(number: int) -> None:
            with server.connect() as connection:
                first = number * size
                wanted = f"bytes={first}-{first + size - 1}"
                if connection.download(blob(bench.pulled.digest), Range=wanted) != size:
                    raise LoadError("a range has another length than was asked for")

        _pull(server, bench.pulled, bench.source.size)
        return work(server, parts * size / 2**20, parts, one)

    return measure


def _pull(server: Server, body: Body, size: int) -> None:
    with server.connect() as connection:
        if connection.download(blob(body.digest)) != size:
            raise LoadError("a blob has another length than was pushed")


def get_manifest(bench: Bench, server: Server) -> Work:
    """Requests by tag over keep-alive connections, after a second to warm up."""
    get_rate(server.address, _TAGGED, _MANIFEST, connections=GET_CONNECTIONS, seconds=1)
    cpu_s = server.cpu_s()
    rate = get_rate(server.address, _TAGGED, _MANIFEST, connections=GET_CONNECTIONS, seconds=_GETS_S)
    return Work(rate * _GETS_S, _GETS_S, server.cpu_s() - cpu_s)


def push_small(*, single: bool) -> Measure:
    """Blobs by POST and PUT, or one POST with the bytes where the server takes it, else a PUT after it."""

    def measure(bench: Bench, server: Server) -> Work:
        blobs = [os.urandom(SMALL_BYTES) for _ in range(SMALL_BLOBS)]
        named = [(data, f"sha256:{hashlib.sha256(data).hexdigest()}") for data in blobs]

        def one(number: int) -> None:
            with server.connect() as connection:
                for data, digest in named[number::SMALL_CLIENTS]:
                    _push_blob(connection, data, digest, single=single)

        done = work(server, SMALL_BLOBS, SMALL_CLIENTS, one)
        os.sync()
        return done

    return measure


def _push_blob(connection: Connection, data: bytes, digest: str, *, single: bool) -> None:
    start = f"/v2/{_REPOSITORY}/blobs/uploads/"
    if single:
        answer = connection.request("POST", f"{start}?digest={digest}", data, Content_Type=OCTETS).require(201, 202)
    else:
        answer = connection.request("POST", start).require(202)
    if answer.status == 202:
        connection.request("PUT", with_digest(answer.target, digest), data, Content_Type=OCTETS).require(201)


def _push_manifest(connection: Connection) -> None:
    def descriptor(media_type: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        _push_blob(connection, data, digest, single=False)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layers = [descriptor(OCTETS, os.urandom(100)) for _ in range(_LAYERS)]
    body = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": descriptor(_CONFIG, b"{}"), "layers": layers}
    connection.request("PUT", _TAGGED, json.dumps(body).encode(), Content_Type=_MANIFEST).require(201)


ROWS: Final = (
    Row("put", "push, POST + PUT, one client", "MiB", 1.5, push("put", Source.put, 1)),
    Row("put-4", "push, POST + PUT, four at once", "MiB", 1.5, push("put-4", Source.put, 4)),
    Row("patch", "push, chunked PATCH + PUT, one client", "MiB", 1.5, push("patch", Source.patch, 1)),
    Row("patch-4", "push, chunked PATCH + PUT, four at once", "MiB", 1.5, push("patch-4", Source.patch, 4)),
    Row("pull", "pull, one client", "MiB", 1.3, pull(1)),
    Row("pull-4", "pull, four at once", "MiB", 1.3, pull(4)),
    Row("ranges", "pull, 16 ranges of one blob at once", "MiB", 1.3, pull_ranges(16)),
    Row("manifest", f"manifest GET by tag, {GET_CONNECTIONS} connections", "request", 1.0, get_manifest),
    Row("small", f"push {SMALL_BLOBS} x 4 KiB, POST + PUT", "blob", 1.0, push_small(single=False)),
    Row("small-post", f"push {SMALL_BLOBS} x 4 KiB, POST ?digest=", "blob", 1.0, push_small(single=True)),
)
