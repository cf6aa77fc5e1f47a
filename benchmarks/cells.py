"""The cells of the runtime's comparison: what is asked of one server, and what is made of its answers."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from load import LoadError, together
from peers import Server
from tokens import Answer, Dialect, LlamaServer, Ollama, ask, begin, prompt, receive, request

Figures = dict[str, float]

_PREFIX_TOKENS: Final = 2000
_BUSY_TOKENS: Final = 256  # enough to be still answering when the next one asks
_IDLE_S: Final = 2.0
_TEXTS, _TEXT_TOKENS, _CALLERS = 64, 30, 8
_UNLOAD_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers, and how it is spoken to."""

    server: Server
    dialect: Dialect

    def ask(self, prompts: Sequence[str], tokens: int) -> list[Answer]:
        return ask(self.server.address, self.dialect, prompts, tokens)

    def idle_ms(self) -> float:
        """Milliseconds of processor time that it uses in a second without requests."""
        time.sleep(0.2)  # whatever it does just after an answer is not idling
        before, start = self.server.cpu_s(), time.perf_counter()
        time.sleep(_IDLE_S)
        return (self.server.cpu_s() - before) / (time.perf_counter() - start) * 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both sides, round by round."""

    title: str
    rounds: list[tuple[float, float]]
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers; never at work together."""

    mine: Side
    theirs: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.mine, self.theirs

    def rounds(
        self, measure: Callable[[Side, str], Figures], count: int, *, seed: str = ""
    ) -> list[tuple[Figures, Figures]]:
        """`measure` of both in each round: ours, theirs, theirs, ours … It gets a seed that no other round has."""
        return _alternate(lambda name: measure(self.mine, name), lambda name: measure(self.theirs, name), count, seed)


def _alternate(
    mine: Callable[[str], Figures], theirs: Callable[[str], Figures], count: int, seed: str = ""
) -> list[tuple[Figures, Figures]]:
    measured = []
    for number in range(count):
        name = f"{seed} {number}"
        if number % 2 == 0:
            ours = mine(name)
            measured.append((ours, theirs(name)))
        else:
            other = theirs(name)
            measured.append((mine(name), other))
    return measured


def rows(titles: dict[str, int], rounds: Sequence[tuple[Figures, Figures]]) -> list[Row]:
    """A row for each title; the number is that of its digits."""
    return [Row(title, [(mine[title], theirs[title]) for mine, theirs in rounds], titles[title]) for title in titles]


def crowd(side: Side, seed: str, streams: int, length: int, tokens: int) -> Figures:
    """So many prompts at once that nobody has seen."""
    prompts = [prompt(length, f"{seed} {number}") for number in range(streams)]
    cpu_s = side.server.cpu_s()
    answers = side.ask(prompts, tokens)
    cpu_s = side.server.cpu_s() - cpu_s
    given = sum(answer.tokens for answer in answers)
    firsts = sorted(answer.first_s * 1000 for answer in answers)
    return {
        "tokens/s": given / max(answer.last_s for answer in answers),
        "p50": statistics.median(firsts),
        "p95": firsts[min(int(0.95 * streams), streams - 1)],
        "cpu": cpu_s * 1000 / given,
        "tokens": given,
        "prompt": statistics.median(answer.prompt_tokens for answer in answers),
    }


def prefix(side: Side, seed: str, tokens: int) -> Figures:
    """First tokens after one prefix: cold, warm, and while the one before is still answering."""
    shared = prompt(_PREFIX_TOKENS, f"prefix {seed}")
    [cold] = side.ask([shared + " lighthouse"], 2)
    [warm] = side.ask([shared + " harbour"], 2)
    other = prompt(_PREFIX_TOKENS, f"busy {seed}")
    busy = _while_busy(side, other + " lighthouse", other + " harbour", max(tokens, _BUSY_TOKENS))
    return {
        "cold, ms": cold.first_s * 1000,
        "warm, ms": warm.first_s * 1000,
        "busy, ms": busy * 1000,
        "warm / cold": warm.first_s / cold.first_s,
        "busy / cold": busy / cold.first_s,
    }


PREFIX_DIGITS: Final = {"cold, ms": 0, "warm, ms": 0, "busy, ms": 0, "warm / cold": 3, "busy / cold": 3}


def _while_busy(side: Side, first: str, second: str, tokens: int) -> float:
    """Seconds to the first token of `second`, asked as soon as the answer to `first` has begun."""
    address = side.server.address
    stream = begin(address)
    try:
        stream.socket.sendall(request(address, *side.dialect.ask(first, tokens)))
        receive([stream], until=600)  # the head and a token or two
        [answer] = side.ask([second], 2)
    finally:
        stream.socket.close()
    return answer.first_s


def loads(mine: Side, start: Callable[[int], AbstractContextManager[Server]], count: int) -> list[Row]:
    """A cold model until its first token; theirs is another process, the running one stays as it is."""
    numbers = iter(range(count))

    def load_ours(name: str) -> Figures:
        assert isinstance(mine.dialect, Ollama)
        _unload(mine, mine.dialect.model)
        [answer] = mine.ask([prompt(_TEXT_TOKENS, f"load {name}")], 2)
        return {"ms": answer.first_s * 1000}

    def load_theirs(name: str) -> Figures:
        started = time.perf_counter()
        with start(next(numbers)) as server:
            ready_s = time.perf_counter() - started
            [answer] = ask(server.address, LlamaServer(), [prompt(_TEXT_TOKENS, f"load {name}")], 2)
        return {"ms": (ready_s + answer.first_s) * 1000}

    rounds = _alternate(load_ours, load_theirs, count)
    return [Row("to the first token, ms", [(ours["ms"], theirs["ms"]) for ours, theirs in rounds])]


def _unload(side: Side, model: str) -> None:
    body = json.dumps({"model": model, "keep_alive": 0}).encode()
    deadline = time.monotonic() + _UNLOAD_S
    with side.server.connect() as connection:
        connection.request("POST", "/api/generate", body).require(200)
        while any(entry["name"] == model for entry in json.loads(connection.request("GET", "/api/ps").body)["models"]):
            if time.monotonic() > deadline:
                raise LoadError(f"{model} does not unload")
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Embedders:
    """Our server and the name of a model in it, and a llama-server that embeds."""

    mine: Server
    model: str
    theirs: Server

    def rounds(self, count: int) -> list[Row]:
        """64 texts in one call, in as many calls, and by eight callers."""
        for server in (self.mine, self.theirs):
            self._call(server, [["warm up"]])
        figures = _alternate(lambda name: self._all(self.mine, name), lambda name: self._all(self.theirs, name), count)
        digits = {
            "one call, ms": 0,
            "64 calls in turn, ms": 0,
            "8 callers at once, ms": 0,
            "calls in turn / one call": 1,
        }
        return rows(digits, figures)

    def _all(self, server: Server, seed: str) -> Figures:
        texts = [prompt(_TEXT_TOKENS, f"embed {seed} {number}") for number in range(_TEXTS)]
        singles = [[text] for text in texts]
        share = _TEXTS // _CALLERS
        one_s = self._call(server, [texts])
        single_s = self._call(server, singles)
        start = time.perf_counter()
        together(_CALLERS, lambda caller: self._call(server, singles[caller * share : (caller + 1) * share]))
        crowd_s = time.perf_counter() - start
        return {
            "one call, ms": one_s * 1000,
            "64 calls in turn, ms": single_s * 1000,
            "8 callers at once, ms": crowd_s * 1000,
            "calls in turn / one call": single_s / one_s,
        }

    def _call(self, server: Server, calls: Sequence[list[str]]) -> float:
        """Seconds until the last of `calls` is answered, all on one connection. What came is looked at afterwards."""
        path, key = ("/api/embed", "embeddings") if server is self.mine else ("/v1/embeddings", "data")
        bodies = [json.dumps({"model": self.model, "input": texts}).encode() for texts in calls]
        with server.connect() as connection:
            start = time.perf_counter()
            answers = [connection.request("POST", path, body, Content_Type="application/json") for body in bodies]
            seconds = time.perf_counter() - start
        for texts, answer in zip(calls, answers, strict=True):
            if len(json.loads(answer.require(200).body)[key]) != len(texts):
                raise LoadError(f"not {len(texts)} vectors for {len(texts)} texts")
        return seconds
