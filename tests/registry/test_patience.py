"""Connections that stand still hold no thread for ever."""

from __future__ import annotations

import errno
import socket
import threading
import time

import pytest

from registry import patience
from registry.patience import PatientSocket


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[PatientSocket, socket.socket]:
    monkeypatch.setattr(patience, "STALL_S", 0.2)
    monkeypatch.setattr(patience, "HEAD_S", 0.2)
    ours, theirs = socket.socketpair()
    patient = PatientSocket(fileno=ours.detach())
    patient.setblocking(True)
    return patient, theirs


def test_a_silent_peer_counts_as_gone(pair: tuple[PatientSocket, socket.socket]) -> None:
    with pytest.raises(ConnectionResetError) as caught:
        pair[0].recv(10)

    assert caught.value.errno == errno.ECONNRESET


def test_a_peer_that_does_not_read_counts_as_gone(pair: tuple[PatientSocket, socket.socket], tmp_path) -> None:
    with pytest.raises(ConnectionResetError):
        pair[0].sendall(b"x" * 2**24)

    (tmp_path / "file").write_bytes(b"x" * 2**24)
    with (tmp_path / "file").open("rb") as file, pytest.raises(ConnectionResetError):
        pair[0].sendfile(file)


def test_a_peer_that_goes_on_is_waited_for(pair: tuple[PatientSocket, socket.socket]) -> None:
    pair[1].sendall(b"here")

    assert pair[0].recv(10) == b"here"


def test_a_peer_that_crawls_counts_as_gone(pair: tuple[PatientSocket, socket.socket]) -> None:
    def trickle() -> None:
        while not done.wait(0.05):
            pair[1].send(b"x")

    done = threading.Event()
    peer = threading.Thread(target=trickle)
    peer.start()
    try:
        with pytest.raises(ConnectionResetError):
            for _ in range(1000):
                pair[0].recv(10)
    finally:
        done.set()
        peer.join()


def test_a_peer_that_is_slow_but_not_that_slow_is_served(pair, monkeypatch) -> None:
    monkeypatch.setattr(patience, "LEAST_RATE", 1.0)

    def trickle() -> None:
        for _ in range(10):
            time.sleep(0.05)  # the slowness under test: ten of them are more than the patience
            pair[1].send(b"x")
        pair[1].close()

    peer = threading.Thread(target=trickle)
    peer.start()
    received = b""
    while piece := pair[0].recv(10):
        received += piece
    peer.join()

    assert received == b"x" * 10


def test_a_file_is_sent_from_and_to_where_it_should(pair: tuple[PatientSocket, socket.socket], tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    with (tmp_path / "file").open("rb") as file:
        assert pair[0].sendfile(file, offset=2, count=5) == 5
        assert pair[0].sendfile(file, offset=8) == 2

    assert pair[1].recv(100) == b"2345689"


def test_a_file_that_ends_too_soon_ends_the_connection(pair: tuple[PatientSocket, socket.socket], tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"short")

    with (tmp_path / "file").open("rb") as file, pytest.raises(ConnectionResetError):
        pair[0].sendfile(file, count=100)


def test_patience_is_short_until_the_head_is_here_and_can_be_taken_back(pair, monkeypatch) -> None:
    monkeypatch.setattr(patience, "STALL_S", 30.0)
    pair[0].setblocking(True)
    with pytest.raises(ConnectionResetError):
        pair[0].recv(10)

    pair[0].be_patient()
    threading.Timer(0.5, pair[1].sendall, [b"late"]).start()
    assert pair[0].recv(10) == b"late"

    pair[0].be_patient_for(0.1)
    pair[1].sendall(b"x" * 2000)  # gives back no more than was left
    assert len(pair[0].recv(2000)) == 2000
    with pytest.raises(ConnectionResetError):
        pair[0].recv(10)
