"""What a lease makes of a runner that is slow, deaf, gone or dishonest; the runner is a socket of our own."""

from __future__ import annotations

import base64
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InputInvalid, RequestCancelled, RunnerGone
from runtime.supervisor import lease as module
from runtime.supervisor.lease import Lease
from runtime.wire import Channel, FrameDecoder, encode_frame
from tests.supervised import request

LONG = "x" * 8 * 1024**2  # more than a socket holds


class Held:
    """A lease, the door of its runner, and the supervisor's end of it."""

    def __init__(self, path: Path) -> None:
        ours, self.supervisor = socket.socketpair()
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.door.bind(str(path))
        self.door.listen(1)
        self.lease = Lease(Channel(ours), {"socket": str(path), "context_length": 8}, load_ns=0)

    def answers(self, *events: dict[str, Any], after_s: float = 0.0) -> None:
        """Let one request be read whole after a while, and answered so."""

        def serve() -> None:
            stream, _ = self.door.accept()
            time.sleep(after_s)
            decoder = FrameDecoder()
            while decoder.next() is None:
                decoder.feed(stream.recv(2**20))
            stream.sendall(b"".join(map(encode_frame, events)))

        threading.Thread(target=serve, daemon=True).start()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path / "r.sock")
    yield held
    held.lease.close()
    held.supervisor.close()
    held.door.close()


def after(seconds: float) -> Callable[[], bool]:
    """True once so much time has passed."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def test_a_prompt_larger_than_a_socket_waits_for_a_runner_in_a_long_step(held: Held) -> None:
    held.answers({"event": "done", "tokens": 7}, after_s=3 * module.POLL_S)

    assert held.lease.count(LONG) == 7


@pytest.mark.parametrize("ask", ["generate", "count", "tokenize"])
def test_a_client_that_leaves_while_its_prompt_is_sent_is_noticed(held: Held, ask: str) -> None:
    asked = request(LONG) if ask == "generate" else LONG
    began = time.monotonic()

    with pytest.raises(RequestCancelled):
        list(getattr(held.lease, ask)(asked, is_cancelled=after(0.2)))

    assert time.monotonic() - began < 2


def test_a_runner_that_ends_while_a_prompt_is_sent_is_told_of_in_the_supervisors_words(held: Held) -> None:
    held.supervisor.sendall(encode_frame({"event": "gone", "message": "the model runner was ended: it hung"}))

    for _ in range(2):
        with pytest.raises(RunnerGone, match="it hung"):
            held.lease.count(LONG)


def test_a_runner_with_a_crowd_at_its_door_is_not_gone(held: Held) -> None:
    crowd = []
    for _ in range(10):
        waits = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        waits.setblocking(False)
        crowd.append(waits)
        try:
            waits.connect(held.door.getsockname())
        except BlockingIOError:
            break
    else:
        pytest.fail("the door holds more than it says")

    with pytest.raises(RequestCancelled):
        held.lease.count("a", is_cancelled=after(0.2))

    for waits in crowd:
        waits.close()


def vectors(count: int, width: int) -> dict[str, Any]:
    data = base64.b64encode(array("f", [1.0] * (count * width)).tobytes()).decode("ascii")
    return {"event": "vectors", "width": width, "data": data}


def test_more_numbers_than_a_worker_may_hold_are_refused_with_the_first_vector(held: Held) -> None:
    held.answers(vectors(1, 1024))

    with pytest.raises(InputInvalid) as refused:
        held.lease.embed(["a"] * (16 * 1024 + 1))

    assert str(refused.value) == (
        "too many inputs: 16385 vectors of 1024 numbers, and 16384 are the most of one call with this model"
    )


@pytest.mark.parametrize("dishonest", [vectors(3, 4), {"event": "vectors", "width": 0, "data": ""}])
def test_a_runner_that_answers_more_than_it_was_asked_is_not_believed(held: Held, dishonest: dict[str, Any]) -> None:
    held.answers(dishonest, {"event": "done", "prompt_tokens": 2})

    with pytest.raises(RunnerGone):
        held.lease.embed(["a", "b"])


def test_an_input_that_fails_after_others_fails_the_call(held: Held) -> None:
    held.answers(vectors(1, 4), {"event": "error", "kind": "InputInvalid", "message": "embedding contains NaN"})

    with pytest.raises(InputInvalid, match="NaN"):
        held.lease.embed(["a", "b"])
