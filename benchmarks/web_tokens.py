"""What a web worker costs a token: one worker, with a supervisor and a runner that compute nothing.

Both stand-ins are one process that speaks the frames of `runtime/wire.py`. Its answers are made before they are asked
for; in a burst all of one come at once, which shows the most a worker can pass on, and paced each comes alone, as from
a real runner, which shows what waking up for each token costs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Final

from load import Connection, LoadError
from peers import ROOT, Server, free_address
from tokens import Ollama, ask

sys.path.insert(0, str(ROOT))

from demo.demo import MODEL, Home, push, server
from registry.config import load_config
from runtime.supervisor.client import SOCKET_NAME
from runtime.wire import Channel, FrameInvalid, encode_frame

_TOKENS: Final = {"burst": 8000, "paced": 800}
_PACE_S: Final = 0.004
_CROWD: Final = 8
_START_S: Final = 30.0
_REQUEST_S: Final = 60.0
_ROWS: Final = tuple((kind, streams) for kind in _TOKENS for streams in (1, _CROWD))


def measure(folder: Path, model: Path, rounds: int) -> list[tuple[str, float, int]]:
    """Title, median and digits of each figure."""
    folder.mkdir()
    home = Home(folder)
    with server(home, "127.0.0.1:0"), redirect_stdout(sys.stderr):  # it tells its steps
        push(home, model)
    figures: dict[str, list[float]] = {}
    with _worker(home) as worker:
        ask(worker.address, Ollama(MODEL), ["burst"] * _CROWD, _TOKENS["burst"])
        for _ in range(rounds):
            for kind, streams in _ROWS:
                rate, cpu_us = _crowd(worker, kind, streams)
                figures.setdefault(f"{kind}, streams at once: {streams}; tokens/s", []).append(rate)
                figures.setdefault(f"{kind}, streams at once: {streams}; cpu us/token", []).append(cpu_us)
    return [(title, statistics.median(found), 0) for title, found in figures.items()]


def _crowd(worker: Server, kind: str, streams: int) -> tuple[float, float]:
    """Tokens a second of all together, and microseconds of the worker's processor time for each."""
    cpu_s = worker.cpu_s()
    answers = ask(worker.address, Ollama(MODEL), [kind] * streams, _TOKENS[kind])
    given = sum(answer.tokens for answer in answers)
    if given != streams * _TOKENS[kind]:
        raise LoadError("tokens were lost on the way")
    return given / max(answer.last_s for answer in answers), (worker.cpu_s() - cpu_s) / given * 1e6


@contextmanager
def _worker(home: Home) -> Iterator[Server]:
    """One web worker as `tonnage serve` starts it, and the stand-ins."""
    host, port = address = free_address()
    environ = {"TONNAGE_DATA": str(home.folder / "data"), "TONNAGE_LISTEN": f"{host}:{port}", "TONNAGE_WORKERS": "1"}
    config = load_config(environ=environ)
    stand_in = _fork(config.run_path)
    try:
        with socket.create_server(address, backlog=256) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `tonnage serve` listens
            told = {"parent": os.getpid(), "listener_fd": listener.fileno(), "config": config.to_json()}
            command = [sys.executable, "-m", "registry.workers"]
            with (home.folder / "worker.log").open("wb") as log:
                process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stderr=log, pass_fds=[listener.fileno()]
                )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.close()
            _await(address)
            yield Server("web worker", address, process.pid, ())
        finally:
            process.terminate()
            process.wait(_START_S)
    finally:
        os.kill(stand_in, signal.SIGKILL)
        os.waitpid(stand_in, 0)


def _await(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            with Connection(address) as connection:
                if connection.request("GET", "/").status == 200:
                    return
        except (OSError, LoadError):
            pass
        time.sleep(0.05)
    raise LoadError("the web worker does not answer")


def _fork(run_dir: Path) -> int:
    """A child that is supervisor and runner. Its parent kills it."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    listeners = [_listen(run_dir / SOCKET_NAME), _listen(run_dir / "runner.sock")]
    pid = os.fork()
    if pid == 0:
        try:
            StandIn(run_dir / "runner.sock").serve(*listeners)
        finally:
            signal.pause()
    for listener in listeners:
        listener.close()
    return pid


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    return listener


class StandIn:
    """Leases a runner that is there already, and answers with words that were there before."""

    def __init__(self, runner: Path) -> None:
        self._ready = {"event": "ready", "socket": str(runner), "context_length": 2**20, "parallel": 64}
        piece = encode_frame({"event": "piece", "text": " word"})
        self._answers = {kind: ([piece] * count, _done(count)) for kind, count in _TOKENS.items()}

    def serve(self, supervisor: socket.socket, runner: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(supervisor, self._lease), daemon=True).start()
        self._accept(runner, self._answer)

    def _accept(self, listener: socket.socket, serve: object) -> None:
        assert callable(serve)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._converse, args=(Channel(connection), serve), daemon=True).start()

    @staticmethod
    def _converse(channel: Channel, serve: object) -> None:
        assert callable(serve)
        try:
            request = channel.receive(timeout_s=_REQUEST_S)
            if request is not None:
                serve(channel, request)
                channel.receive(timeout_s=_REQUEST_S)  # until the other side closes
        except (OSError, FrameInvalid):
            pass  # it left
        finally:
            channel.close()

    def _lease(self, channel: Channel, request: dict[str, object]) -> None:
        channel.send(self._ready if request["op"] == "lease" else {"event": "done", "pid": os.getpid(), "models": []})

    def _answer(self, channel: Channel, request: dict[str, object]) -> None:
        if request["op"] != "generate":
            channel.send({"event": "done", "tokens": 1})
            return
        asked = request["request"]
        assert isinstance(asked, dict)
        pieces, done = self._answers[asked["prompt"]]
        if asked["prompt"] == "burst":
            channel.send_frame(b"".join([*pieces, done]))
            return
        due = time.monotonic()
        for piece in pieces:
            channel.send_frame(piece)
            due += _PACE_S
            time.sleep(max(due - time.monotonic(), 0))
        channel.send_frame(done)


def _done(tokens: int) -> bytes:
    figures = {"reason": "length", "prompt_tokens": 1, "prompt_ns": 1, "tokens": tokens, "tokens_ns": 1}
    return encode_frame({"event": "done", **figures, "truncated": False, "context": None})


if __name__ == "__main__":
    import tempfile

    from demo import smollm2

    with tempfile.TemporaryDirectory(prefix="tonnage-bench-") as scratch:
        for row_title, figure, _ in measure(Path(scratch) / "web", smollm2.fetch(), 3):
            print(f"{row_title:50}{figure:10.0f}")
