"""A laptop's folder and SQLite, a bucket, PostgreSQL, three nodes: what each step costs, in one run.

    python benchmarks/scale.py --versitygw PATH --postgresql URL [--peer /usr/bin/docker-registry] [--rounds 2]
    python benchmarks/scale.py --versitygw PATH --memory [--size-mib 5120]
    python benchmarks/scale.py --versitygw PATH --large [--size-mib 6144]

Pushes and pulls of one blob by one client, and of four smaller ones by four at once: through a server of ours over
files, over a bucket, over the bucket and PostgreSQL, over three nodes of which each request goes to the next; with
clients that are sent on to the bucket (direct) and without; and, beside them, a registry of the CNCF distribution
project over its own S3 driver and the same bucket. All servers run throughout, one works at a time, the order changes
from round to round; a ratio is the median of the rounds' ratios.

The store is versitygw on the same machine: it takes processor time from the servers, more for a push than they need
(the column store). Its own rate, with nothing between it and the client, is the first line. What a push leaves among
its files is removed behind everybody's back; digests are checked once for each cell, outside the timed part.

docker-registry 2.8 asks the store before each part whether to go on, and versitygw does not answer that: it waits a
second for each 10 MiB that it is pushed. Compare its processor time there, and its pulls.

--memory: one long blob in and out through one node, and many shorter ones at once; peak memory of its web workers.
--large: one blob over the 5 GiB that a store copies in one piece, and each request that it took of the store.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import heavy
from alone import store_alone
from buckets import Bucket, bucket, nodes, peer_on
from fresh_database import fresh_database
from load import LoadError, Source, measure
from peers import ours
from rows import Work, prime, work
from spray import Fleet, check, pull, push, push_parts

_MIB: Final = 2**20
_FREE_FACTOR: Final = 12
_MEMORY_MIB: Final = 5 * 1024
_LARGE_MIB: Final = 6 * 1024
_WARM: Final = 8

Cell = Callable[[Fleet], tuple[Work, float]]


def main() -> None:
    given = _arguments()
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="tonnage-bench-", dir=given.scratch))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        if given.memory or given.large:
            run = heavy.memory if given.memory else heavy.large
            run(given.versitygw, scratch, (given.size_mib or (_MEMORY_MIB if given.memory else _LARGE_MIB)) * _MIB)
            return
        size = (given.size_mib or 1024) * _MIB
        if shutil.disk_usage(scratch).free < _FREE_FACTOR * size:
            raise SystemExit(f"{scratch} has not room for {_FREE_FACTOR} x {size // _MIB} MiB; see --scratch")
        store = stack.enter_context(bucket(given.versitygw, scratch / "s3"))
        fleets = stack.enter_context(_fleets(given, store, scratch))
        _warm(fleets, _folder(scratch, 0))
        for clients in (1, 4):
            source = stack.enter_context(closing(Source(_folder(scratch, clients), size // clients)))
            cells = {"push": _push(source, store, scratch, clients), "pull": _pull(source, store, clients)}
            for title, cell in cells.items():
                rounds = [_round(cell, fleets, number) for number in range(given.rounds)]
                _print(f"{title}, {clients} x {size // clients // _MIB} MiB", fleets, rounds)


@contextmanager
def _fleets(given: argparse.Namespace, store: Bucket, scratch: Path) -> Iterator[list[Fleet]]:
    """All that is compared, running."""
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(given.postgresql))
        shared = store.settings("shared", TONNAGE_DATABASE_URL=url)
        direct = {"TONNAGE_S3_REDIRECT": "always", "TONNAGE_S3_DIRECT_UPLOAD": "true"}
        three = stack.enter_context(nodes(scratch, shared, 3))
        one = stack.enter_context(ours(scratch / "sqlite", store.settings("sqlite")))
        sent_on = stack.enter_context(ours(scratch / "direct", {**shared, **direct}))
        fleets = [
            store_alone(store),
            Fleet("files, SQLite", (stack.enter_context(ours(scratch / "files")),), push, pull),
            Fleet("bucket, SQLite", (one,), push, pull),
            Fleet("bucket, PostgreSQL", three[:1], push, pull),
            Fleet("the same, 3 nodes", three, push, pull),
            Fleet("the same, direct", (sent_on,), push_parts, pull),
        ]
        for redirects in (False, True) if given.peer else ():
            folder = scratch / ("peer-direct" if redirects else "peer")
            server = stack.enter_context(peer_on(store, given.peer, folder, redirects=redirects))
            fleets.append(Fleet(f"{server.name}{', direct' if redirects else ''}", (server,), push, pull))
        yield fleets


def _warm(fleets: Sequence[Fleet], folder: Path) -> None:
    """Small pushes, so that each worker has the connections and clients that it makes when it first needs them."""
    with closing(Source(folder, _MIB)) as source:
        for fleet in fleets[1:]:
            for _ in range(_WARM * len(fleet.servers)):
                push(fleet, source, source.fresh())


def _round(cell: Cell, fleets: Sequence[Fleet], number: int) -> list[tuple[Work, float]]:
    """What each fleet did, and what the store used meanwhile, in ms/MiB; they take turns in being the first."""
    first = number * 3 % len(fleets)
    found = {fleet.name: cell(fleet) for fleet in (*fleets[first:], *fleets[:first])}
    return [found[fleet.name] for fleet in fleets]


def _work(fleet: Fleet, store: Bucket, mib: float, clients: int, job: Callable[[int], object]) -> tuple[Work, float]:
    before = store.process.cpu_s()
    done = work(fleet, mib, clients, job)
    return done, (store.process.cpu_s() - before) / mib * 1000


def _push(source: Source, store: Bucket, scratch: Path, clients: int) -> Cell:
    checked = set[str]()

    def cell(fleet: Fleet) -> tuple[Work, float]:
        bodies, before = [source.fresh() for _ in range(clients)], _files(fleet, scratch)
        source.warm()
        prime(scratch, clients * source.size)
        mib = clients * source.size / _MIB
        done = _work(fleet, store, mib, clients, lambda number: fleet.push(fleet, source, bodies[number]))
        for body in bodies[:1] if fleet.name not in checked else ():
            check(fleet, body.digest)
            checked.add(fleet.name)
        for path in _files(fleet, scratch) - before:
            path.unlink()
        os.sync()
        return done

    return cell


def _pull(source: Source, store: Bucket, clients: int) -> Cell:
    held = dict[str, str]()

    def cell(fleet: Fleet) -> tuple[Work, float]:
        if fleet.name not in held:
            body = source.fresh()
            fleet.push(fleet, source, body)
            check(fleet, body.digest)
            held[fleet.name] = body.digest

        def one(_client: int) -> None:
            if fleet.pull(fleet, held[fleet.name], None) != source.size:
                raise LoadError("a blob has another length than was pushed")

        one(0)  # into the page cache, should it have left it
        return _work(fleet, store, clients * source.size / _MIB, clients, one)

    return cell


def _files(fleet: Fleet, scratch: Path) -> set[Path]:
    """Large files of the fleet's own, and of the bucket."""
    found = {path for server in fleet.servers for path in server.large_files()}
    return found | {path for path in (scratch / "s3").rglob("*") if path.is_file() and path.stat().st_size >= _MIB}


def _folder(scratch: Path, clients: int) -> Path:
    folder = scratch / f"source-{clients}"
    folder.mkdir()
    return folder


def _print(title: str, fleets: Sequence[Fleet], rounds: Sequence[Sequence[tuple[Work, float]]]) -> None:
    beside = {0: "the store alone"}
    beside |= {n: fleet.name for n, fleet in enumerate(fleets) if "registry" in fleet.name}
    of = " | ".join(f"of {name}" for name in beside.values())
    print(f"\n| {title} | MiB/s | {of} | cpu ms/MiB | store | peak MiB |")
    print(f"| --- {'| ---: ' * (4 + len(beside))}|")
    for place, fleet in enumerate(fleets):
        rates = [each[place][0].rate for each in rounds]
        cpu = 0.0 if place == 0 else statistics.median(each[place][0].cpu_ms for each in rounds)
        used = statistics.median(each[place][1] for each in rounds)
        ratios = (_ratio([each[place][0].rate / each[other][0].rate for each in rounds]) for other in beside)
        figures = f"{cpu:.2f} | {used:.2f} | {fleet.peak_bytes() // _MIB}"
        print(f"| {fleet.name} | {statistics.median(rates):.0f} | {' | '.join(ratios)} | {figures} |")


def _ratio(ratios: Sequence[float]) -> str:
    least, most = min(ratios), max(ratios)
    spread = f" ({least:.2f}-{most:.2f})" if len(ratios) > 1 else ""
    return f"**{statistics.median(ratios):.2f}**{spread}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versitygw", type=Path, required=True, help="the S3 server's binary")
    parser.add_argument("--postgresql", metavar="URL", help="of a server where databases may be created")
    parser.add_argument("--peer", type=Path, help="a registry binary of the CNCF distribution project")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--size-mib", type=int, choices=range(4, 64 * 1024), metavar="N")
    parser.add_argument("--rounds", type=int, default=2, choices=range(1, 50), metavar="N")
    parser.add_argument("--scratch", type=Path, help="a folder with room for twelve times the size")
    given = parser.parse_args()
    if not (given.postgresql or given.memory or given.large):
        parser.error("--postgresql is needed")
    return given


if __name__ == "__main__":
    measure(main)
