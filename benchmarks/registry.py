"""This registry beside another one on the same machine, disk and client: ratios, measured in one run.

    python benchmarks/registry.py --peer /usr/bin/docker-registry [--size-mib 1024] [--rounds 3] [--only put,pull]

The peer is a binary of the CNCF distribution project, release 2.8 (Debian: docker-registry) or 3. Both servers run
throughout, with default settings and fresh folders on one disk, and only one of them is at work at a time. Each row is
measured in rounds, a server after the other, with the order changed from round to round; its ratio is the median of the
rounds' ratios, with the least and the greatest. Absolute rates of a shared machine mean little; the ratio is what to
read.

The columns cpu tell how many milliseconds of processor time the two servers' processes used for a MiB, request or blob.

The client is in this process: raw sockets, uploads by sendfile from the page cache, downloads dropped into a buffer.
Every blob that is pushed has a digest never seen before; the time counts from connecting to the last answer. Before a
push as much page cache as it needs is filled and freed, after it the disk is left to finish (neither counts), and the
bytes are removed. Blobs are pulled from the page cache. Lengths are checked always, digests once for each row and
server, outside the timed part. The single POST is retried as POST + PUT where the server answers 202, which is what
the spec makes of a server that does not take it.

Both servers wait for the disk before they answer a push, but not for the same: the peer for each file it wrote (ten
waits for a small blob), we for the bytes, for their name in its folder, and for the rows of the database (nine). Lines
below the table say how fast this disk takes one blob, written and synced, and how fast the kernel alone sends one.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import gets
from load import Source, measure
from peers import Server, ours, peer
from rows import ROWS, Bench, Row, Work

_ROUNDS_MAX = 50
_SIZE_MAX_MIB = 16 * 1024
_FREE_FACTOR = 8  # of a blob's size: the two dressings of the source, two pulled blobs, four pushed at once


def main() -> None:
    given = _arguments()
    rows = [row for row in ROWS if not given.only or row.name in given.only]
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="tonnage-bench-", dir=given.scratch))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        if shutil.disk_usage(scratch).free < _FREE_FACTOR * given.size_mib * 2**20:
            raise SystemExit(f"{scratch} has not room for {_FREE_FACTOR} x {given.size_mib} MiB; see --scratch")
        source = Source(scratch, given.size_mib * 2**20)
        stack.callback(source.close)
        bench = Bench(source, scratch, source.fresh())
        servers = stack.enter_context(ours(scratch / "ours")), stack.enter_context(peer(given.peer, scratch / "peer"))
        for server in servers:
            bench.prepare(server)
        _print_line("", *(server.name for server in servers), "ratio", "min-max", "at least", "cpu", "cpu")
        for row in rows:
            _print_row(row, _measure(row, bench, servers, given.rounds))
        _print_footer(bench, servers, given.rounds)


def _measure(row: Row, bench: Bench, servers: tuple[Server, Server], rounds: int) -> list[tuple[Work, Work]]:
    """What we did and what the peer did in each round."""
    measured = []
    for number in range(rounds):
        if number % 2 == 0:
            mine, theirs = (row.measure(bench, server) for server in servers)
        else:
            theirs, mine = (row.measure(bench, server) for server in servers[::-1])
        measured.append((mine, theirs))
    return measured


def _print_row(row: Row, rounds: Sequence[tuple[Work, Work]]) -> None:
    columns = list(zip(*rounds, strict=True))
    rates = (f"{statistics.median(work.rate for work in column):.0f} {row.unit}/s" for column in columns)
    cpu = (f"{statistics.median(work.cpu_ms for work in column):.2f}" for column in columns)
    ratios = sorted(mine.rate / theirs.rate for mine, theirs in rounds)
    ratio = statistics.median(ratios)
    mark = "" if ratio >= row.at_least else "  below"
    _print_line(
        row.title, *rates, f"{ratio:.2f}", f"{ratios[0]:.2f}-{ratios[-1]:.2f}", f"{row.at_least:.1f}", *cpu, mark
    )


def _print_line(title: str, mine: str, theirs: str, *rest: str) -> None:
    ratio, spread, least, my_cpu, their_cpu, *mark = rest
    numbers = f"{mine:>16}{theirs:>22}{ratio:>8}  {spread:11}{least:>8}{my_cpu:>9}{their_cpu:>9}"
    print(f"{title:40}{numbers}{''.join(mark)}", flush=True)


def _print_footer(bench: Bench, servers: tuple[Server, Server], rounds: int) -> None:
    worker = max(servers[0].peak_bytes("registry.workers"))
    totals = [sum(server.peak_bytes()) for server in servers]
    disk = statistics.median(bench.disk_rate() for _ in range(rounds))
    one, four = (statistics.median(bench.sendfile_rate(clients) for _ in range(rounds)) for clients in (1, 4))
    size = bench.source.size // 2**20
    print(
        f"\npeak resident memory, shared pages counted in each process: {servers[0].name} web worker "
        f"{worker >> 20} MiB, all {len(servers[0].peak_bytes())} processes {totals[0] >> 20} MiB; "
        f"{servers[1].name} {totals[1] >> 20} MiB"
        f"\nthe disk: write and fsync {size} MiB at {disk:.0f} MiB/s"
        f"\nthe kernel alone, a bare loop of sendfile: {one:.0f} MiB/s to one client, {four:.0f} to four at once"
        f"\nblobs of {size} MiB, medians of {rounds} rounds, manifest GETs by {gets.client()}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=_binary, required=True, metavar="PATH", help="the registry to compare with")
    parser.add_argument("--size-mib", type=_within(1, _SIZE_MAX_MIB), default=1024, help="of a large blob")
    parser.add_argument("--rounds", type=_within(1, _ROUNDS_MAX), default=3)
    parser.add_argument("--only", type=_names, default=(), help=f"rows of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--scratch", type=Path, help="where to make a folder for the run; a temporary one by default")
    return parser.parse_args()


def _binary(text: str) -> Path:
    path = shutil.which(text)
    if path is None:
        raise argparse.ArgumentTypeError(f"{text} is no program")
    return Path(path).absolute()


def _within(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}")
        return int(text)

    return number


def _names(text: str) -> tuple[str, ...]:
    names, known = tuple(text.split(",")), {row.name for row in ROWS}
    if not known.issuperset(names):
        raise argparse.ArgumentTypeError(f"rows are {', '.join(row.name for row in ROWS)}")
    return names


if __name__ == "__main__":
    measure(main)
