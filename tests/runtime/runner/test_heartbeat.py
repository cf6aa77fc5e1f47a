"""Signs of life: few, never waited for, and never wrong about rest."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from runtime.runner.heartbeat import Heartbeat
from runtime.wire import FrameDecoder


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("runtime.runner.heartbeat.time.monotonic", lambda: now[0])
    return now


def beats(receiver: socket.socket) -> list[bool]:
    """What was told since the last look: whether it is at work."""
    decoder = FrameDecoder()
    try:
        while received := receiver.recv(65536):
            decoder.feed(received)
    except BlockingIOError:
        pass
    return [event["busy"] for event in iter(decoder.next, None)]


def test_work_is_told_at_once_and_then_every_second(
    channel: tuple[socket.socket, socket.socket], clock: list[float]
) -> None:
    heart = Heartbeat(channel[0])
    heart.busy()
    assert beats(channel[1]) == [True]
    for _ in range(300):
        clock[0] += 0.01
        heart.step()

    assert len(beats(channel[1])) in {2, 3}


def test_rest_is_told_late_and_work_after_it_at_once(
    channel: tuple[socket.socket, socket.socket], clock: list[float]
) -> None:
    heart = Heartbeat(channel[0])
    assert heart.idle() is None
    heart.busy()
    clock[0] += 0.25
    assert heart.idle() == pytest.approx(0.75)
    assert beats(channel[1]) == [True]
    clock[0] += 0.75
    assert heart.idle() is None
    heart.busy()

    assert beats(channel[1]) == [False, True]


def test_a_full_channel_stops_nobody_and_frames_stay_whole(
    channel: tuple[socket.socket, socket.socket], clock: list[float]
) -> None:
    heart = Heartbeat(channel[0])
    channel[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(2000):
        clock[0] += 1.0
        heart.busy()
    clock[0] += 1.0
    assert heart.idle() == 1.0  # it could not be told: try again

    told = beats(channel[1])
    assert told and all(told)
    while heart.idle() is not None:
        clock[0] += 1.0
    assert beats(channel[1])[-1] is False
