"""Who waits for a model when the supervisor dies: put in line again, for a while, and without haste."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import RequestCancelled, SupervisorGone
from runtime.supervisor import client as module
from runtime.supervisor.client import SOCKET_NAME, Supervisor
from runtime.supervisor.lease import POLL_S
from runtime.wire import encode_frame
from tests.supervised import spec_of

READY = encode_frame({"event": "ready", "socket": "/nowhere", "context_length": 8, "parallel": 1})
Scene = Callable[..., list[float]]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Scene]:
    """Plays a supervisor that holds each connection for so long, and closes the last one after "ready"."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(tmp_path / SOCKET_NAME))
    door.listen(8)

    def play(*holds_s: float, is_kind: bool) -> list[float]:
        came_at: list[float] = []

        def serve() -> None:
            for number, hold_s in enumerate(holds_s):
                stream, _ = door.accept()
                came_at.append(time.monotonic())
                stream.recv(2**16)
                time.sleep(hold_s)
                if is_kind and number == len(holds_s) - 1:
                    stream.sendall(READY)
                stream.close()

        threading.Thread(target=serve, daemon=True).start()
        return came_at

    yield play
    door.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_who_has_waited_long_is_asked_for_again_all_the_same(
    supervisor: Scene, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETURN_S", 0.3)
    came_at = supervisor(0.5, 0.5, 0.0, is_kind=True)

    Supervisor(model.parent).lease(spec_of(model)).close()

    assert len(came_at) == 3


def test_a_supervisor_that_closes_without_a_word_is_not_asked_without_end_nor_in_haste(
    supervisor: Scene, model: Path
) -> None:
    came_at = supervisor(*[0.0] * 100, is_kind=False)

    with pytest.raises(SupervisorGone, match="stopped answering") as gone:
        Supervisor(model.parent).lease(spec_of(model))

    assert len(came_at) == 5
    assert min(late - early for early, late in itertools.pairwise(came_at)) > POLL_S / 2
    assert gone.value.detail["retry_after_s"] >= 1


def test_a_client_that_leaves_meanwhile_is_noticed(supervisor: Scene, model: Path) -> None:
    supervisor(*[0.0] * 100, is_kind=False)
    until = time.monotonic() + 0.2

    with pytest.raises(RequestCancelled):
        Supervisor(model.parent).lease(spec_of(model), is_cancelled=lambda: time.monotonic() > until)
