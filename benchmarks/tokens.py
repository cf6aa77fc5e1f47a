"""A client of streamed answers that costs little: one thread, raw sockets, bytes kept with the time they came at.

Nothing is parsed while answers come in; what was said, when, and how many tokens it was is read afterwards.
"""

from __future__ import annotations

import bisect
import json
import random
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from load import LoadError

_RECEIVE_BYTES: Final = 256 * 2**10
_ANSWER_MAX: Final = 64 * 2**20
_CROWD_S: Final = 900.0  # sixteen long prompts on a slow machine take minutes
_WORDS: Final = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work government number night point home water room "
    "mother area money story fact month lot right study book eye job word business issue side kind head house "
    "service friend father power hour game line end member law car city community name president team minute idea "
    "body information back parent face level office door health person art war history party result change morning "
    "reason research girl moment air teacher force education"
)
_ENDING: Final = ".\n\nOnce upon a time, in a small village by the sea, there was a"  # a model goes on from this
_ENDING_TOKENS: Final = 18


@dataclass(frozen=True, slots=True)
class Event:
    """One object of a stream: some text, or the end with its counts."""

    text: str
    tokens: int = 0
    prompt_tokens: int = 0


class Dialect(Protocol):
    """How a server is asked for a stream, and what it says."""

    def ask(self, prompt: str, tokens: int) -> tuple[str, dict[str, Any]]:
        """Path and body of a greedy request for at most so many tokens."""

    def read(self, line: bytes) -> Event | None:
        """What one line says; None for one that says nothing. Raises LoadError for an error."""


@dataclass(frozen=True, slots=True)
class Ollama:
    """POST /api/generate, raw: no template around the prompt."""

    model: str

    def ask(self, prompt: str, tokens: int) -> tuple[str, dict[str, Any]]:
        options = {"temperature": 0, "num_predict": tokens}
        return "/api/generate", {"model": self.model, "prompt": prompt, "raw": True, "options": options}

    def read(self, line: bytes) -> Event | None:
        said = json.loads(line)
        if "error" in said:
            raise LoadError(f"a stream failed: {said['error']}")
        return Event(said["response"], said.get("eval_count", 0), said.get("prompt_eval_count", 0))


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """POST /completion of llama-server; the cheapest of its ways to draw the likeliest token."""

    def ask(self, prompt: str, tokens: int) -> tuple[str, dict[str, Any]]:
        greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1}
        return "/completion", {"prompt": prompt, "n_predict": tokens, "stream": True, **greedy}

    def read(self, line: bytes) -> Event | None:
        if not line.startswith(b"data: "):
            return None
        said = json.loads(line.removeprefix(b"data: "))
        if "error" in said:
            raise LoadError(f"a stream failed: {said['error']}")
        return Event(said["content"], said.get("tokens_predicted", 0), said.get("tokens_evaluated", 0))


@dataclass(frozen=True, slots=True)
class Answer:
    """One stream. Times in seconds since the whole crowd began."""

    first_s: float
    last_s: float
    text: str
    tokens: int
    prompt_tokens: int


@dataclass(slots=True)
class Stream:
    """An open connection and what came of it, with how many bytes there were at which time."""

    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    sizes: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def arrived(self, size: int) -> float:
        """When the first `size` bytes were there."""
        return self.times[bisect.bisect_left(self.sizes, size)]


def prompt(tokens: int, seed: str) -> str:
    """Common words in an order that only `seed` decides, and a beginning to go on from: about `tokens` tokens."""
    draw, words = random.Random(seed), _WORDS.split()
    drawn = (draw.choice(words) for _ in range(max(tokens - _ENDING_TOKENS, 1)))
    return " ".join(drawn).capitalize() + _ENDING


def ask(address: tuple[str, int], dialect: Dialect, prompts: Sequence[str], tokens: int) -> list[Answer]:
    """All prompts at once, each on a connection that is open before the clock starts. Raises LoadError."""
    streams = [begin(address) for _ in prompts]
    try:
        heads = [request(address, *dialect.ask(text, tokens)) for text in prompts]
        started = time.perf_counter()
        for stream, head in zip(streams, heads, strict=True):
            stream.socket.sendall(head)
        receive(streams)
        return [_answer(stream, dialect, started) for stream in streams]
    finally:
        for stream in streams:
            stream.socket.close()


def begin(address: tuple[str, int]) -> Stream:
    """A connection that nothing was said on."""
    opened = socket.create_connection(address, 30.0)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Stream(opened)


def request(address: tuple[str, int], path: str, body: dict[str, Any]) -> bytes:
    """One request that closes its connection."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def receive(streams: Sequence[Stream], *, until: int | None = None) -> None:
    """Read all streams to their ends, or until each has at least `until` bytes. Raises LoadError."""
    deadline = time.perf_counter() + _CROWD_S
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(1.0)
            if time.perf_counter() > deadline:
                raise LoadError(f"streams did not end within {_CROWD_S:.0f} s")
            for key, _ in ready:
                stream = key.data
                data = stream.socket.recv(_RECEIVE_BYTES)
                stream.received += data
                stream.sizes.append(len(stream.received))
                stream.times.append(time.perf_counter())
                if len(stream.received) > _ANSWER_MAX:
                    raise LoadError("an answer has no end")
                if not data or (until is not None and len(stream.received) >= until):
                    selector.unregister(stream.socket)


def _answer(stream: Stream, dialect: Dialect, started: float) -> Answer:
    head, separator, _ = bytes(stream.received).partition(b"\r\n\r\n")
    if not separator or head.split(b" ", 2)[1:2] != [b"200"]:
        raise LoadError(f"a stream was refused: {bytes(stream.received[:500])!r}")
    first_at, text, last = 0, [], None
    for line, end in _lines(bytes(stream.received), len(head) + 4, is_chunked=b"chunked" in head.lower()):
        event = dialect.read(line) if line.strip() else None
        if event is None:
            continue
        if event.text and not first_at:
            first_at = end
        text.append(event.text)
        last = event
    if last is None or not first_at or not last.tokens:
        raise LoadError(f"a stream ended without an answer: {bytes(stream.received[-500:])!r}")
    first_s, last_s = stream.arrived(first_at) - started, stream.times[-1] - started
    return Answer(first_s, last_s, "".join(text), last.tokens, last.prompt_tokens)


def _lines(data: bytes, start: int, *, is_chunked: bool) -> Iterator[tuple[bytes, int]]:
    """Each line of the body, and the offset in `data` at which it is complete."""
    rest = b""
    for piece, end in _chunks(data, start) if is_chunked else [(data[start:], len(data))]:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line, end
    if rest:
        yield rest, len(data)


def _chunks(data: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            raise LoadError("a stream broke off")
        size = int(data[at:line_end].split(b";")[0], 16)
        if size == 0:
            return
        end = line_end + 2 + size
        yield data[line_end + 2 : end], end
        at = end + 2
