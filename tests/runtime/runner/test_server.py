"""A runner's socket: what is read beside the loop, who leaves, and what makes no sense."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.messages import GenerateRequest
from runtime.options import SampleOptions
from runtime.runner.engine import Engine
from runtime.runner.library import Log, Model
from runtime.runner.server import Server
from runtime.runner.settings import RunnerSettings
from runtime.wire import Channel, encode_frame
from tests.supervised import eventually
from tests.tiny_gguf import write_tiny_gguf

WAIT_S = 20.0
LONG = "hello the world in " * 4000  # beyond what is read in the loop


class Running:
    """A server in a thread, and the way to it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        path = write_tiny_gguf(folder / "tiny.gguf")
        told = RunnerSettings(str(path), "", **{"context_length": 512, "parallel": 2, "num_thread": 1, **settings})
        self._log = Log()
        self._model = Model(told, self._log, lambda _: None)
        self.engine = Engine(self._model, told)
        listener = socket.socket(socket.AF_UNIX)
        self.path = str(folder / "runner.sock")
        listener.bind(self.path)
        listener.listen(16)
        self.control, theirs = socket.socketpair()
        self.server = Server(self.engine, self._model.vocabulary, listener, theirs)
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def connect(self) -> Channel:
        return Channel.connect(self.path, timeout_s=WAIT_S)

    def ask(self, **request: Any) -> Channel:
        channel = self.connect()
        channel.send(request, timeout_s=WAIT_S)
        return channel

    def last(self, channel: Channel) -> dict[str, Any]:
        """The event that ends an answer."""
        while True:
            event = channel.receive(timeout_s=WAIT_S)
            assert event is not None
            if event["event"] in {"done", "error"}:
                return event

    @property
    def is_idle(self) -> bool:
        return not self.server._connections and not self.engine.has_work


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("runner"))
    yield running
    running.control.close()
    running.thread.join(WAIT_S)
    assert not running.thread.is_alive()


def generation(prompt: str, *, tokens: int = 4, **options: Any) -> dict[str, Any]:
    return GenerateRequest(prompt, SampleOptions(temperature=0, num_predict=tokens), **options).to_json()


@pytest.mark.parametrize("prompt", ["hello", LONG])
def test_a_prompt_is_answered_however_long_it_is(running: Running, prompt: str) -> None:
    done = running.last(running.ask(op="generate", request=generation(prompt)))

    assert (done["event"], done["tokens"]) == ("done", 4)


@pytest.mark.parametrize("prompt", ["hello " * 600, LONG])
def test_what_is_refused_is_refused_however_it_was_read(running: Running, prompt: str) -> None:
    error = running.last(running.ask(op="generate", request=generation(prompt, truncate=False)))

    assert (error["event"], error["kind"]) == ("error", "PromptTooLong")


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "embed", "inputs": ["hello", LONG], "truncate": True},
        {"op": "count", "text": LONG},
        {"op": "tokenize", "text": LONG, "add_special": True},
        {"op": "detokenize", "tokens": [1, 2]},
    ],
)
def test_the_other_questions(running: Running, request_: dict[str, Any]) -> None:
    assert running.last(running.ask(**request_))["event"] == "done"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "fly"},
        {"op": "generate"},
        {"op": "generate", "request": {"prompt": 1, "options": {}}},
        {"op": "generate", "request": generation("x", images=("AAAA",))},
        {"op": "embed", "inputs": 3, "truncate": True},
        {"op": "count", "text": None},
    ],
)
def test_what_makes_no_sense_is_an_error_and_nothing_more(running: Running, request_: dict[str, Any]) -> None:
    assert running.last(running.ask(**request_))["event"] == "error"
    assert running.last(running.ask(op="generate", request=generation("hello")))["event"] == "done"


@pytest.mark.parametrize("request_", [generation("hello", tokens=10_000), generation(LONG, tokens=10_000)])
def test_who_leaves_is_forgotten(running: Running, request_: dict[str, Any]) -> None:
    channel = running.ask(op="generate", request=request_)

    channel.close()

    assert eventually(lambda: running.is_idle, within_s=WAIT_S)


@pytest.mark.parametrize("second", [LONG, "hello"])
def test_a_connection_has_one_request(running: Running, second: str) -> None:
    channel = running.ask(op="generate", request=generation(LONG, tokens=10_000))

    with pytest.raises((AssertionError, ConnectionError)):  # closed; reset where not all of the second had been read
        channel.send({"op": "generate", "request": generation(second)}, timeout_s=WAIT_S)
        running.last(channel)
    assert eventually(lambda: running.is_idle, within_s=WAIT_S)


def test_bytes_that_are_no_frame_end_their_connection_alone(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(running.path)
        stranger.sendall(b"\xff" * 64)
        stranger.settimeout(WAIT_S)
        assert stranger.recv(1) == b""

    assert running.last(running.ask(op="generate", request=generation("hello")))["event"] == "done"


def test_half_a_frame_is_waited_for(running: Running) -> None:
    frame = encode_frame({"op": "count", "text": "hello"})
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(running.path)
        slow.sendall(frame[:7])
        assert running.last(running.ask(op="generate", request=generation("hello")))["event"] == "done"
        slow.sendall(frame[7:])
        slow.settimeout(WAIT_S)
        assert slow.recv(4096)
