"""`kill -9` in mid-append: the session goes on at an offset that is true."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.chunks import ChunkRange
from storage.digest import Digest
from storage.store import Store

ROOT = Path(__file__).parents[2]
MIB = 2**20
CHUNK = ChunkRange(MIB, 12 * MIB - 1)

WRITER = """
import itertools, sys
from pathlib import Path
from storage import intake
from storage.db import Database
from storage.drivers.filesystem import FilesystemDriver
from storage.reference import RepositoryName
from storage.store import Store
from storage.chunks import ChunkRange

intake.SAVE_BYTES = 2 * 2**20
store = Store(Database(sys.argv[1]), FilesystemDriver(Path(sys.argv[2])))
upload = store.uploads.resume(RepositoryName(sys.argv[3]), sys.argv[4])


class Body:
    def __init__(self):
        self.sent = 0

    def read(self, size):
        if self.sent == 7:  # the rest never comes; the parent kills us here, with bytes written past the saved offset
            print("stuck", flush=True)
            sys.stdin.read()
        self.sent += 1
        return bytes([self.sent]) * 2**20


upload.append(Body(), chunk=ChunkRange(2**20, 12 * 2**20 - 1), length=11 * 2**20)
"""


@pytest.mark.parametrize("resume_at", ["offset", "chunk start"])
def test_a_killed_writer_leaves_a_session_that_goes_on(
    store: Store, database_url, name, tmp_path, monkeypatch, resume_at
):
    upload = store.uploads.start(name)
    upload.append(io.BytesIO(b"\0" * MIB))
    arguments = [sys.executable, "-c", WRITER, database_url, str(tmp_path / "data"), str(name), upload.id]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stuck\n"
        _wait_for(lambda: store.uploads.resume(name, upload.id).offset == 7 * MIB)
        process.send_signal(signal.SIGKILL)
    _let_claims_lapse(monkeypatch)

    again = store.uploads.resume(name, upload.id)
    assert again.offset == 7 * MIB  # three saves of 2 MiB after the first MiB; the eighth was written too
    whole = b"".join(bytes([number]) * MIB for number in range(12))
    first = again.offset if resume_at == "offset" else CHUNK.first
    again.append(io.BytesIO(whole[first:]), chunk=ChunkRange(first, CHUNK.last), length=12 * MIB - first)

    assert again.commit(Digest.of(whole)).size == 12 * MIB


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _let_claims_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead writer's claim would hold for half a minute: set our clock ahead instead of waiting."""
    real = time.time
    monkeypatch.setattr("storage.claims.time.time", lambda: real() + 31)
