"""This server's runtime beside llama-server of the same llama.cpp: same model, threads, slots, context and client.

    python benchmarks/runtime.py --llama-server PATH [--model GGUF] [--rounds 3] [--only 1x30,prefix] [--tokens 64]

Both servers run throughout and only one of them is at work at a time; what an idle one costs is said below the tables.
Each cell is measured in rounds, a server after the other, with the order changed from round to round; a ratio is ours
through theirs, the median of the rounds' ratios with the least and the greatest. Absolute figures of a shared machine
mean little; the ratio is what to read. Ours is the whole product: HTTP, web workers, supervisor, runner.

Cells, as `--only` names them:

  1x30 … 16x2000  so many streams at once, of prompts so long: tokens a second of all together, from the first request
                  to the last answer; time to first token; processor time of all the server's processes a token.
                  No prompt was ever seen before; both draw the likeliest token and stop where the model ends the text;
                  tokens are counted by the servers themselves.
  prefix          time to first token of a prompt of 2,000 tokens: never seen (cold), seen but for its end in an answer
                  that is over (warm), and in one that is being given (busy), so that another slot has to answer
  embed           64 texts of 30 tokens: in one call, in 64 calls one after the other, by 8 callers at once
  load            a model that is not loaded, until its first token; for llama-server from the start of the process
  web             what a web worker itself costs a token, with a runner that computes nothing; ours alone

Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import cells
import web_tokens
from llama_server import Setting, llama_server
from load import measure
from machine import describe
from peers import ROOT, Server
from tokens import LlamaServer, Ollama, ask, prompt

sys.path.insert(0, str(ROOT))

from demo import smollm2
from demo.demo import MODEL, Home, push, server
from runtime.runner.threads import physical_cores

EMBEDDER: Final = "demo/embedder:latest"
_STREAMS, _PROMPTS = (1, 4, 8, 16), (30, 500, 2000)
_CROWDS: Final = tuple(f"{streams}x{tokens}" for tokens in _PROMPTS for streams in _STREAMS)
_OTHERS: Final = ("prefix", "embed", "load", "web")
_ROUNDS_MAX, _TOKENS_MAX, _SLOTS_MAX = 50, 1024, 64


def main() -> None:
    given = _arguments()
    setting = Setting(physical_cores(), given.slots, given.context, given.kv_type, given.spin)
    model: Path = given.model
    wanted = given.only or (*_CROWDS, *_OTHERS)
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="tonnage-bench-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        print(describe(given.llama_server, model, setting), flush=True)
        if set(wanted) - {"web"}:
            _compare(given, setting, model, scratch, wanted)
        if "web" in wanted:
            _print_table(("the web worker alone", "ours"), web_tokens.measure(scratch / "web", model, given.rounds))


def _compare(given: argparse.Namespace, setting: Setting, model: Path, scratch: Path, wanted: Sequence[str]) -> None:
    with ExitStack() as stack:
        home, mine = stack.enter_context(ours(scratch / "ours", model, setting))
        theirs = stack.enter_context(llama_server(given.llama_server, model, scratch / "theirs", setting))
        pair = cells.Pair(cells.Side(mine, Ollama(MODEL)), cells.Side(theirs, LlamaServer()))
        for side in pair.sides:
            ask(side.server.address, side.dialect, [prompt(30, "warm up")], 4)
        _crowds(pair, [name for name in wanted if name not in _OTHERS], given)
        if "prefix" in wanted:
            rounds = pair.rounds(lambda side, name: cells.prefix(side, name, given.tokens), given.rounds)
            _print_pairs("first token of a prompt of 2,000 tokens", cells.rows(cells.PREFIX_DIGITS, rounds))
        if "load" in wanted:
            start = lambda number: llama_server(given.llama_server, model, scratch / f"load{number}", setting)  # noqa: E731
            _print_pairs("loading, page cache warm", cells.loads(pair.mine, start, given.rounds))
        idle = [side.idle_ms() for side in pair.sides]
        if "embed" in wanted:
            _embed(given, home, mine, scratch / "embeds", setting)
        print(f"Idle, milliseconds of processor time a second: ours {idle[0]:.1f}, theirs {idle[1]:.1f}.\n", flush=True)


def _crowds(pair: cells.Pair, names: Sequence[str], given: argparse.Namespace) -> None:
    """One wide table: a row a cell."""
    if not names:
        return
    _print_row("streams x prompt", *(f"{what} {whose}" for what in ("tokens/s", "first token p50, ms", "p95, ms",
               "cpu ms/token") for whose in ("ours", "theirs", "ratio")), "tokens given")  # fmt: skip
    _print_row("---", *("---:" for _ in range(13)))
    for name in names:
        streams, length = (int(part) for part in name.split("x"))
        ask_all = lambda side, seed: cells.crowd(side, seed, streams, length, given.tokens)  # noqa: B023, E731
        rounds = pair.rounds(ask_all, given.rounds, seed=name)
        columns: list[str] = []
        for key, digits in (("tokens/s", 0), ("p50", 0), ("p95", 0), ("cpu", 2)):
            columns += _figures([(mine[key], theirs[key]) for mine, theirs in rounds], digits)
        read = statistics.median(mine["prompt"] for mine, _ in rounds)
        counts = [f"{statistics.median(side['tokens'] for side in column):.0f}" for column in zip(*rounds, strict=True)]
        _print_row(f"{streams} x {read:.0f}", *columns, " / ".join(counts))
    print(flush=True)


def _embed(given: argparse.Namespace, home: Home, mine: Server, folder: Path, setting: Setting) -> None:
    """A second llama-server, because one that embeds does nothing else."""
    path, name, pooling = given.embedding_model or given.model, MODEL, "mean"
    if given.embedding_model:
        key = home.folder / "publisher" / "id_ed25519"
        home.tonnage("push", str(path), EMBEDDER, "--key", str(key))
        name, pooling = EMBEDDER, ""
    with llama_server(given.llama_server, path, folder, setting, embeds=True, pooling=pooling) as theirs:
        _print_pairs("64 texts of 30 tokens", cells.Embedders(mine, name, theirs).rounds(given.rounds))


@contextmanager
def ours(folder: Path, model: Path, setting: Setting) -> Iterator[tuple[Home, Server]]:
    """`tonnage serve` with the model in it, told the same as its peer."""
    told: dict[str, object] = {"OLLAMA_NUM_PARALLEL": setting.slots, "OLLAMA_CONTEXT_LENGTH": setting.context}
    told |= {"OLLAMA_KV_CACHE_TYPE": setting.kv_type, "OLLAMA_FLASH_ATTENTION": "auto", "OLLAMA_KEEP_ALIVE": -1}
    for name in [name for name in os.environ if name.startswith(("TONNAGE_", "OLLAMA_"))]:
        del os.environ[name]
    os.environ.update({name: str(value) for name, value in told.items()})
    folder.mkdir()
    home = Home(folder)
    with server(home, "127.0.0.1:0") as process:
        with redirect_stdout(sys.stderr):  # it tells its steps
            push(home, model)
        parts = urlsplit(home.url)
        yield home, Server("tonnage", (parts.hostname or "", parts.port or 0), process.pid, ())


def _print_pairs(title: str, rows: Sequence[cells.Row]) -> None:
    """One row a figure: ours, theirs, the ratio."""
    _print_row(title, "ours", "theirs", "ratio")
    _print_row("---", "---:", "---:", "---:")
    for row in rows:
        _print_row(row.title, *_figures(row.rounds, row.digits))
    print(flush=True)


def _print_table(heads: Sequence[str], rows: Sequence[tuple[str, float, int]]) -> None:
    _print_row(*heads)
    _print_row("---", "---:")
    for title, figure, digits in rows:
        _print_row(title, f"{figure:.{digits}f}")
    print(flush=True)


def _figures(rounds: Sequence[tuple[float, float]], digits: int) -> list[str]:
    """Medians of both sides, and the median of the rounds' ratios with the least and the greatest."""
    mine, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = sorted(one / other if other else float("nan") for one, other in rounds)
    spread = f" ({ratios[0]:.2f}-{ratios[-1]:.2f})" if len(ratios) > 1 else ""
    return [f"{mine:.{digits}f}", f"{theirs:.{digits}f}", f"**{statistics.median(ratios):.2f}**{spread}"]


def _print_row(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=_file, required=True, metavar="PATH", help="of the same llama.cpp")
    parser.add_argument("--model", type=_file, metavar="GGUF", help="SmolLM2-135M by default")
    parser.add_argument("--embedding-model", type=_file, metavar="GGUF", help="the same model by default, mean pooling")
    parser.add_argument("--rounds", type=_within(1, _ROUNDS_MAX), default=3)
    parser.add_argument("--tokens", type=_within(2, _TOKENS_MAX), default=64, help="of each answer at most")
    parser.add_argument("--slots", type=_within(1, _SLOTS_MAX), default=max(_STREAMS), help="of each server")
    parser.add_argument("--context", type=_within(256, 2**20), default=4096, help="tokens a slot")
    parser.add_argument("--kv-type", choices=("f16", "q8_0", "q4_0"), default="f16")
    parser.add_argument("--spin", type=_within(0, 10**9), default=1000, help="GOMP_SPINCOUNT of llama-server; 0: unset")
    parser.add_argument("--only", type=_names, default=(), metavar="NAME,…", help="cells to measure")
    given = parser.parse_args()
    given.model = given.model or smollm2.fetch()
    return given


def _file(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is no file")
    return path


def _within(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}")
        return int(text)

    return number


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in _OTHERS and not re.fullmatch(r"[1-9]\d?x[1-9]\d{0,4}", name):
            raise argparse.ArgumentTypeError(f"cells are STREAMSxTOKENS, such as 4x500, and {', '.join(_OTHERS)}")
    return names


if __name__ == "__main__":
    measure(main)
