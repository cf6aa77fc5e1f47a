"""One node and more bytes than memory should hold: what its web workers take, and what it asks of the store."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from buckets import Bucket, bucket
from load import OCTETS, Connection, LoadError, together, with_digest
from peers import Server, ours

_MIB: Final = 2**20
_GIB: Final = 2**30
_PATTERN_BYTES: Final = 64 * _MIB
_UPLOADS: Final = "/v2/bench/weights/blobs/uploads/"
_COMPLETE_S: Final = 900.0  # versitygw copies all parts into one file, whose disk may be slow
_SHORT_MIB: Final = 64
_AT_ONCE: Final = (4, 16)
_REQUEST: Final = re.compile(r" s3_(\w+) (objects|staged)?")


class Long:
    """A blob as long as one likes of one file in the page cache, again and again, and an end of its own."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size, self._pattern_size = size, min(size, _PATTERN_BYTES)
        self._file = os.open(folder / "pattern", os.O_RDWR | os.O_CREAT)
        self._pattern = os.urandom(self._pattern_size)
        os.pwrite(self._file, self._pattern, 0)
        self._tail = os.urandom(size % self._pattern_size + 64)
        self.size = size // self._pattern_size * self._pattern_size + len(self._tail)
        hasher = hashlib.sha256()
        for _ in range(size // self._pattern_size):
            hasher.update(self._pattern)
        hasher.update(self._tail)
        self.digest = f"sha256:{hasher.hexdigest()}"

    def send(self, connection: Connection) -> Iterator[int]:
        """How many bytes have gone, after each piece."""
        for number in range(self.size // self._pattern_size):
            connection.send_file(self._file, self._pattern_size)
            yield (number + 1) * self._pattern_size
        connection.send(self._tail)
        yield self.size

    def close(self) -> None:
        os.close(self._file)


class Watch:
    """The resident memory of a server's web workers: the largest of them at each gibibyte, and at the peak."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen = [self._now()]

    def at(self, done: int) -> None:
        while len(self._seen) <= -(-done // _GIB):
            self._seen.append(0)
        self._seen[-1] = max(self._seen[-1], self._now())

    def line(self) -> str:
        peak = max(self._server.peak_bytes("registry.workers")) // _MIB
        return f"before {self._seen[0]}, in each GiB {' '.join(map(str, self._seen[1:]))}, peak {peak} MiB"

    def _now(self) -> int:
        return max(self._server.resident_bytes("registry.workers")) // _MIB


def memory(versitygw: Path, scratch: Path, size: int) -> None:
    """Print what a worker takes while long blobs go through it, and many shorter ones at once."""
    with _node(versitygw, scratch) as (_, server):
        long = Long(scratch, size)
        watch = Watch(server)
        _push(server, long, watch)
        print(f"push of {size // _MIB} MiB, resident memory of a web worker: {watch.line()}", flush=True)
        watch = Watch(server)
        _pull(server, long, watch)
        print(f"pull of {size // _MIB} MiB: {watch.line()}", flush=True)
        long.close()
    for clients in _AT_ONCE:
        with _node(versitygw, scratch / f"{clients}") as (_, server):
            blobs = [Long(_folder(scratch / f"{clients}/{number}"), _SHORT_MIB * _MIB) for number in range(clients)]
            watch, start = Watch(server), time.perf_counter()
            together(clients, lambda number, blobs=blobs, server=server: _push(server, blobs[number]))  # type: ignore[misc]
            rate = clients * _SHORT_MIB / (time.perf_counter() - start)
            watch.at(_GIB)
            print(f"{clients} pushes of {_SHORT_MIB} MiB at once, {rate:.0f} MiB/s: {watch.line()}", flush=True)
            for blob in blobs:
                blob.close()


def large(versitygw: Path, scratch: Path, size: int) -> None:
    """Print what one blob over the limit of a copy took: seconds, and requests of the store by kind."""
    with _node(versitygw, scratch, logs=True) as (store, server):
        long = Long(scratch, size)
        start = time.perf_counter()
        body_s, commit_s = _push_in_steps(server, long)
        pushed = _requests(store)
        _pull(server, long, Watch(server))
        pulled_s = time.perf_counter() - start - body_s - commit_s
        print(f"{long.size} bytes: PATCH {body_s:.1f} s, closing PUT {commit_s:.1f} s, GET {pulled_s:.1f} s")
        print(f"asked of the store by the push: {_told(pushed)}")
        print(f"and by the pull: {_told(_requests(store) - pushed)}")
        print("the bytes that came back have the same sha256")
        long.close()


@contextmanager
def _node(versitygw: Path, scratch: Path, *, logs: bool = False) -> Iterator[tuple[Bucket, Server]]:
    with bucket(versitygw, scratch / "s3", logs=logs) as store, ours(scratch / "node", store.settings("")) as server:
        yield store, server


def _push(server: Server, blob: Long, watch: Watch | None = None) -> None:
    with server.connect() as connection:
        target = connection.request("POST", _UPLOADS).require(202).target
        connection.begin("PUT", with_digest(target, blob.digest), Content_Length=str(blob.size), Content_Type=OCTETS)
        for done in blob.send(connection):
            if watch is not None:
                watch.at(done)
        connection.answer().require(201)


def _push_in_steps(server: Server, blob: Long) -> tuple[float, float]:
    """Seconds of the PATCH with all bytes, and of the PUT that makes a blob of them."""
    with server.connect() as connection:
        target = connection.request("POST", _UPLOADS).require(202).target
        start = time.perf_counter()
        connection.begin("PATCH", target, Content_Length=str(blob.size), Content_Type=OCTETS)
        for _ in blob.send(connection):
            pass
        target, sent = connection.answer().require(202).target, time.perf_counter()
        connection.be_patient_for(_COMPLETE_S)
        connection.request("PUT", with_digest(target, blob.digest)).require(201)
        return sent - start, time.perf_counter() - sent


def _pull(server: Server, blob: Long, watch: Watch) -> None:
    """Raises LoadError for other bytes than were pushed."""
    hasher, done = hashlib.sha256(), 0

    def sink(piece: memoryview) -> None:
        nonlocal done
        hasher.update(piece)
        done += len(piece)
        if done % _PATTERN_BYTES < len(piece):
            watch.at(done)

    with server.connect() as connection:
        connection.download(f"/v2/bench/weights/blobs/{blob.digest}", sink=sink)
    if f"sha256:{hasher.hexdigest()}" != blob.digest:
        raise LoadError("other bytes came back than were pushed")


def _requests(store: Bucket) -> Counter[str]:
    """By what is asked, and of which of our folders."""
    lines = store.log.read_text("utf-8", "replace")
    return Counter(f"{each[1]} {each[2] or ''}".strip() for each in _REQUEST.finditer(lines))


def _told(requests: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(requests.items()))


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
