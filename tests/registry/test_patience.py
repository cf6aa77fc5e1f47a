"""Connections that stand still hold no thread for ever."""

from __future__ import annotations

import errno
import socket

import pytest

from registry import patience
from registry.patience import PatientSocket


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[PatientSocket, socket.socket]:
    monkeypatch.setattr(patience, "STALL_S", 0.2)
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
