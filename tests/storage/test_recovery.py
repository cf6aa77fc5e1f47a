"""What a killed writer had staged counts, and its session is free at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.chunks import ChunkRange
from storage.claims import is_left
from storage.db import Database
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload
from storage.writers import is_dead, new_token

ROOT = Path(__file__).parents[2]
DATA = os.urandom(3 * 2**20)
FIRST = DATA[: 2**20]
_WRITER = """
import sys
from pathlib import Path
from storage.chunks import ChunkRange
from storage.db import Database
from storage.drivers.filesystem import FilesystemDriver
from storage.reference import RepositoryName
from storage.store import Store

url, folder, upload_id, end = sys.argv[1:]
upload = Store(Database(url), FilesystemDriver(Path(folder))).uploads.resume(RepositoryName("team/model"), upload_id)
chunk = ChunkRange(upload.offset, int(end) - 1) if int(end) else None
upload.append(sys.stdin.buffer.raw, chunk=chunk)
"""


@pytest.fixture
def disk_store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    database = Database(database_url)
    yield Store(database, FilesystemDriver(tmp_path))
    database.close()


@pytest.fixture
def upload(disk_store: Store) -> Upload:
    upload = disk_store.uploads.start(RepositoryName("team/model"))
    upload.append(io.BytesIO(FIRST))
    return upload


def killed_in_mid_body(upload: Upload, url: str, folder: Path, *, chunk_to: int = 0) -> None:
    """A process appends the second MiB, and is ended before it can tell of it."""
    command = [sys.executable, "-c", _WRITER, url, str(folder), upload.id, str(chunk_to)]
    staged = next((folder / "uploads").iterdir())
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(DATA[2**20 : 2 * 2**20])
        process.stdin.flush()
        for _ in range(3000):
            if staged.stat().st_size == 2 * 2**20:
                break
            assert process.poll() is None
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGKILL)
    assert staged.stat().st_size == 2 * 2**20


def test_whoever_asks_how_far_it_is_goes_on_behind_the_last_byte(disk_store, upload, database_url, tmp_path):
    killed_in_mid_body(upload, database_url, tmp_path)
    again = disk_store.uploads.resume(upload.name, upload.id)
    assert again.offset == len(FIRST)

    again.recover()

    assert again.offset == 2 * 2**20
    again.append(io.BytesIO(DATA[again.offset :]))
    assert again.commit(Digest.of(DATA)).size == len(DATA)


def test_an_append_that_asks_late_goes_on_there_too(disk_store, upload, database_url, tmp_path):
    killed_in_mid_body(upload, database_url, tmp_path)
    again = disk_store.uploads.resume(upload.name, upload.id)

    class Rest(io.RawIOBase):
        at: int | None = None

        def read(self, size: int = -1) -> bytes:
            self.at = again.offset if self.at is None else self.at
            piece, self.at = DATA[self.at : self.at + size], self.at + size
            return piece

    again.append(Rest(), recovers=True)

    assert again.commit(Digest.of(DATA)).size == len(DATA)


def test_the_interrupted_chunk_may_come_again_whole(disk_store, upload, database_url, tmp_path):
    killed_in_mid_body(upload, database_url, tmp_path, chunk_to=len(DATA))
    again = disk_store.uploads.resume(upload.name, upload.id)
    again.recover()

    again.append(io.BytesIO(DATA[2**20 :]), chunk=ChunkRange(2**20, len(DATA) - 1))

    assert again.commit(Digest.of(DATA)).size == len(DATA)


def test_a_body_without_a_range_begins_where_the_client_was_told(disk_store, upload, database_url, tmp_path):
    killed_in_mid_body(upload, database_url, tmp_path)
    again = disk_store.uploads.resume(upload.name, upload.id)

    again.append(io.BytesIO(DATA[2**20 :]))

    assert again.commit(Digest.of(DATA)).size == len(DATA)


def test_a_session_that_was_let_go_is_not_left(disk_store, upload):
    assert not is_left(disk_store.database, upload.id)


def test_only_a_dead_process_of_this_machine_is_dead():
    process = subprocess.run(
        [sys.executable, "-c", "from storage.writers import new_token; print(new_token())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    token = process.stdout.strip()

    assert len(token) == 32
    assert is_dead(token)
    assert not is_dead(new_token())
    assert not is_dead("0" * 8 + token[8:])
    assert not is_dead("")
    assert not is_dead("x" * 32)
