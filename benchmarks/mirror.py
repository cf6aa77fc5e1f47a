"""A mirror beside a pull-through cache of another registry: what a cold blob costs upstream, and how soon it comes.

    python benchmarks/mirror.py --peer /usr/bin/docker-registry [--size-mib 1024] [--clients 20] [--rounds 3]

One upstream, a server of ours, holds every blob. Two servers bring blobs from it through a relay of their own, which
counts the bytes: ours as a mirror, and the peer, a binary of the CNCF distribution project, as a cache. In each round
all clients ask one of them for a blob that it has never seen, then the other. Digests are checked once a round.

The first byte is that of a cold blob of 64 KiB, against asking the upstream itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from load import Connection, LoadError, Source, measure, together
from peers import ROOT, Server, ours, peer

_REPOSITORY: Final = "bench/weights"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_SMALL: Final = 64 * 1024
_SMALL_TIMES: Final = 20
_PIECE: Final = 256 * 1024


class Relay:
    """Passes connections on, byte for byte, and counts what comes back."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self.received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, sink, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, sink, counts), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        buffer = memoryview(bytearray(_PIECE))
        with suppress(OSError):
            while got := source.recv_into(buffer):
                if counts:
                    with self._lock:
                        self.received += got
                sink.sendall(buffer[:got])
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Cold:
    """All clients have had a blob that was not there: seconds until the last, bytes upstream for each of its bytes."""

    seconds: float
    cpu_s: float
    upstream: float


def main() -> None:
    given = _arguments()
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="tonnage-bench-", dir=given.scratch))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        source = stack.enter_context(closing(Source(scratch, given.size_mib * 2**20)))
        upstream = stack.enter_context(ours(scratch / "upstream"))
        relays = [stack.enter_context(closing(Relay(upstream.address))) for _ in range(2)]
        mirrors = (
            stack.enter_context(_mirror(scratch / "mirror", relays[0].url)),
            stack.enter_context(peer(given.peer, scratch / "peer", upstream=relays[1].url)),
        )
        pairs = list(zip(mirrors, relays, strict=True))
        rounds = [
            _round(upstream, source, pairs[:: 1 - 2 * (number % 2)], given.clients) for number in range(given.rounds)
        ]
        first = [_first_bytes(upstream, server) for server in (upstream, *mirrors)]
    _print(given, [server.name for server in mirrors], rounds, first)


@contextmanager
def _mirror(folder: Path, upstream: str) -> Iterator[Server]:
    folder.mkdir()
    command = [sys.executable, "-m", "registry", "mirror", "add", "bench", upstream, "--public", "--data", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    with ours(folder) as server:
        yield server


def _round(upstream: Server, source: Source, pairs: list[tuple[Server, Relay]], clients: int) -> dict[str, Cold]:
    """Each with a blob of its own, so that none finds the other's in the page cache."""
    found = {}
    for server, relay in pairs:
        body = source.fresh()
        with upstream.connect() as connection:
            source.put(connection, _REPOSITORY, body)
            tag = _push_manifest(connection, body.digest, source.size)
        before, cpu_s, start = relay.received, server.cpu_s(), time.perf_counter()
        together(clients, partial(_pull, server, tag, body.digest))
        seconds = time.perf_counter() - start
        found[server.name] = Cold(seconds, server.cpu_s() - cpu_s, (relay.received - before) / source.size)
        _check(server, body.digest)
        _remove(upstream, tag)
    return found


def _pull(server: Server, tag: str, digest: str, _client: int) -> None:
    with server.connect() as connection:
        connection.request("GET", f"/v2/{_REPOSITORY}/manifests/{tag}", Accept=_MANIFEST).require(200)
        connection.download(f"/v2/{_REPOSITORY}/blobs/{digest}")


def _check(server: Server, digest: str) -> None:
    hasher = hashlib.sha256()
    with server.connect() as connection:
        connection.download(f"/v2/{_REPOSITORY}/blobs/{digest}", sink=hasher.update)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise LoadError(f"{server.name} serves other bytes")


def _remove(upstream: Server, tag: str) -> None:
    with upstream.connect() as connection:
        connection.request("DELETE", f"/v2/{_REPOSITORY}/manifests/{tag}").require(202)


def _first_bytes(upstream: Server, server: Server) -> float:
    """Milliseconds from asking for a blob to its first byte, the median; each is new to the server."""
    times = []
    for _ in range(_SMALL_TIMES):
        data = os.urandom(_SMALL)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with upstream.connect() as connection:
            connection.request("POST", f"/v2/{_REPOSITORY}/blobs/uploads/?digest={digest}", data).require(201)
            tag = _push_manifest(connection, digest, len(data))
        with server.connect() as connection:
            connection.request("GET", f"/v2/{_REPOSITORY}/manifests/{tag}", Accept=_MANIFEST).require(200)
            times.append(_first_byte(connection, digest))
    return statistics.median(times)


def _first_byte(connection: Connection, digest: str) -> float:
    seen: list[float] = []
    start = time.perf_counter()
    connection.download(
        f"/v2/{_REPOSITORY}/blobs/{digest}", sink=lambda piece: seen.append(time.perf_counter()) if piece else None
    )
    return (seen[0] - start) * 1000


def _push_manifest(connection: Connection, digest: str, size: int) -> str:
    config = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    connection.request("POST", f"/v2/{_REPOSITORY}/blobs/uploads/?digest={config}", b"{}").require(201)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": _LAYER, "digest": digest, "size": size}],
    }
    tag = f"t{digest[7:19]}"
    target = f"/v2/{_REPOSITORY}/manifests/{tag}"
    connection.request("PUT", target, json.dumps(manifest).encode(), Content_Type=_MANIFEST).require(201)
    return tag


def _print(given: argparse.Namespace, names: list[str], rounds: list[dict[str, Cold]], first: list[float]) -> None:
    mine, theirs = ([each[name] for each in rounds] for name in names)
    ratios = sorted(b.seconds / a.seconds for a, b in zip(mine, theirs, strict=True))
    print(f"| {given.clients} clients x one cold blob of {given.size_mib} MiB | {names[0]} | {names[1]} | ratio |")
    print("| --- | ---: | ---: | ---: |")
    rows = [
        ("seconds until all have it", "seconds", 2),
        ("processor time, s", "cpu_s", 2),
        ("bytes upstream / size", "upstream", 3),
    ]
    for title, field, digits in rows:
        a, b = (statistics.median(getattr(each, field) for each in side) for side in (mine, theirs))
        print(f"| {title} | {a:.{digits}f} | {b:.{digits}f} | **{b / a:.2f}** |")
    print(f"\nspeed, peer's seconds through ours in each round: {', '.join(f'{each:.2f}' for each in ratios)}")
    print(
        f"\nfirst byte of a cold blob of 64 KiB, median of {_SMALL_TIMES}: upstream itself {first[0]:.1f} ms, "
        f"{names[0]} {first[1]:.1f} ms, {names[1]} {first[2]:.1f} ms"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="a registry binary of the CNCF distribution project")
    parser.add_argument("--size-mib", type=int, default=1024, choices=range(1, 16 * 1024), metavar="N")
    parser.add_argument("--clients", type=int, default=20, choices=range(1, 65), metavar="N")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 50), metavar="N")
    parser.add_argument("--scratch", type=Path, help="a folder with room for ten times the size")
    return parser.parse_args()


if __name__ == "__main__":
    measure(main)
