"""A crowd that asks for everything, leaves in the middle, talks nonsense and kills runners, for a bounded time."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.errors import RuntimeFailure
from runtime.supervisor.client import Supervisor

JSON = dict[str, Any]
SCHEMA: Final = {"type": "object", "properties": {"ship": {"type": "string", "maxLength": 20}}, "required": ["ship"]}
_TIMEOUT_S: Final = 120.0  # of one request, on a machine that is busy with all the others
_KILL_EVERY_S: Final = 2.0
_LINES_MAX: Final = 100_000
_RUNNER_DIED: Final = ("model runner", "request canceled", "model supervisor")
_NONSENSE: Final[tuple[tuple[str, bytes], ...]] = (
    ("/api/generate", b"{"),
    ("/api/generate", b"[]"),
    ("/api/generate", b'{"model": "nobody/nothing", "prompt": "x"}'),
    ("/api/generate", b'{"model": "UPPER//case::", "prompt": "x"}'),
    ("/api/generate", b'{"model": "%s", "prompt": "x", "options": {"num_ctx": "many"}}'),
    ("/api/generate", b'{"model": "%s", "prompt": "x", "format": {"type": "object", "not": {}}}'),
    ("/api/generate", b'{"model": "%s", "prompt": "x", "images": ["no base64"]}'),
    ("/api/chat", b'{"model": "%s", "messages": "none"}'),
    ("/api/chat", b'{"model": "%s", "messages": [{"role": "user", "content": 7}]}'),
    ("/api/chat", b'{"model": "%s", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": 1}]}'),
    ("/api/embed", b'{"model": "%s", "input": {"a": 1}}'),
    ("/api/embed", b'{"model": "%s", "input": "x", "truncate": "perhaps"}'),
    ("/api/nothing", b"{}"),
)


@dataclass(frozen=True, slots=True)
class Models:
    """keeper: stays loaded throughout and is never killed. spare: is reloaded, unloaded and killed. embedder: only
    embeds. large: a real model, or none.
    """

    keeper: str
    spare: str
    embedder: str
    large: str = ""


@dataclass
class Tally:
    """What came of all requests. `strange`: what no request should ever see."""

    counts: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count

    def wonder(self, what: str) -> None:
        with self._lock:
            self.strange.append(what)


@dataclass(frozen=True)
class Asker:
    """One client: requests over connections of their own, what comes of them told to `tally`."""

    host: str
    tally: Tally

    def post(self, path: str, body: JSON | bytes, what: str, *, allow: Sequence[int] = ()) -> None:
        """A request to its end. `allow`: refusals that are right."""
        connection = http.client.HTTPConnection(self.host, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
                response = connection.getresponse()
                said = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.tally.wonder(f"{what}: {error!r}")
                return
        if response.status == 200 and b'"error":' not in said[-500:]:
            self.tally.add(what)
        elif response.status in allow:
            self.tally.add(f"{what}, refused")
        elif any(reason.encode() in said[-500:] for reason in _RUNNER_DIED):
            self.tally.add(f"{what}, its runner killed")
        else:
            self.tally.wonder(f"{what}: {response.status} {said[-300:]!r}")

    def leave(self, body: JSON, what: str, *, lines: int = 0, after_s: float = 0.0, part: float = 1.0) -> None:
        """Send `part` of a chat, wait for some lines or a moment, and close the connection."""
        data = json.dumps(body).encode()
        head = f"POST /api/chat HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        address, _, port = self.host.rpartition(":")
        try:
            with socket.create_connection((address, int(port)), _TIMEOUT_S) as connection:
                connection.sendall((head + data)[: max(int(len(head + data) * part), 1)])
                seen = 0
                while seen < lines and (received := connection.recv(4096)):
                    seen += received.count(b"\n")
                time.sleep(after_s)
        except OSError as error:
            self.tally.wonder(f"{what}: {error!r}")
            return
        self.tally.add(what)


def chat(model: str, prompt: str, tokens: int, **options: Any) -> JSON:
    sampled = {"temperature": 0, "num_predict": tokens, **options}
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "options": sampled}


def _actions(asker: Asker, models: Models, draw: random.Random) -> dict[Callable[[], None], int]:
    """What a client may do next, and how often it does."""

    def some(*, long: bool = False) -> str:
        count = draw.randint(300, 3000) if long else draw.randint(1, 30)
        return " ".join(draw.choice(("ship", "crane", "rope", "hello", "world", "storm")) for _ in range(count))

    def model() -> str:
        return draw.choice([models.keeper, models.keeper, models.spare, *([models.large] * bool(models.large))])

    def nonsense() -> None:
        path, body = draw.choice(_NONSENSE)
        body = body.replace(b"%s", models.keeper.encode())
        asker.post(path, body, "nonsense", allow=(400, 404, 405, 413, 422, 500))

    def reload() -> None:
        body = chat(models.spare, some(), 8, num_ctx=draw.choice((256, 384, 512)))
        asker.post("/api/chat", body, "with another context length", allow=(503,))

    def unload() -> None:
        asker.post("/api/generate", {"model": models.spare, "keep_alive": 0}, "unload")

    def embed() -> None:
        texts = [some() for _ in range(draw.randint(1, 40))]
        asker.post("/api/embed", {"model": draw.choice((models.embedder, models.keeper)), "input": texts}, "embed")

    def generate() -> None:
        body = {"model": model(), "prompt": some(), "stream": False, "options": {"num_predict": 20}}
        asker.post("/api/generate", body, "generate")

    def held_answer() -> None:
        body = chat(models.keeper, some(), 60) | {"format": SCHEMA, "stream": False}
        asker.post("/api/chat", body, "held to a schema")

    return {
        lambda: asker.post("/api/chat", chat(model(), some(), draw.randint(1, 60)), "chat"): 6,
        generate: 3,
        lambda: asker.post("/api/chat", chat(model(), some(long=True), 5), "a prompt that may not fit"): 2,
        lambda: asker.leave(chat(model(), some(), 400), "left in an answer", lines=draw.randint(7, 30)): 5,
        lambda: asker.leave(
            chat(model(), some(long=True), 50), "left in a prompt", after_s=draw.uniform(0, 0.1)
        ): 5,
        lambda: asker.leave(chat(model(), some(), 5), "left in a request", part=draw.random() * 0.95): 3,
        held_answer: 1,
        nonsense: 4,
        reload: 1,
        unload: 1,
        embed: 3,
    }  # fmt: skip


def crowd(host: str, models: Models, supervisor: Supervisor, *, clients: int, seconds: float, seed: int) -> Tally:
    """All clients at once, and one that kills runners of what is not the keeper. Returns when all are done."""
    tally = Tally()
    deadline = time.monotonic() + seconds

    def client(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        actions = _actions(Asker(host, tally), models, draw)
        while time.monotonic() < deadline:
            [action] = draw.choices(list(actions), list(actions.values()))
            action()

    def killer() -> None:
        while time.monotonic() < deadline - _KILL_EVERY_S:
            time.sleep(_KILL_EVERY_S)
            _kill_one(supervisor, models, tally)

    with ThreadPoolExecutor(clients + 1) as pool:  # each request has its time limit, so every client ends
        running = [pool.submit(client, number) for number in range(clients)] + [pool.submit(killer)]
        for future in running:
            future.result()
    return tally


def _kill_one(supervisor: Supervisor, models: Models, tally: Tally) -> None:
    """kill -9 one runner, by the id that the supervisor of this very server tells."""
    try:
        victims = [loaded.pid for loaded in supervisor.ps() if loaded.name != models.keeper and loaded.pid]
    except RuntimeFailure as error:
        tally.wonder(f"ps: {error!r}")
        return
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(victims), signal.SIGKILL)
            tally.add("kill -9 of a runner")
