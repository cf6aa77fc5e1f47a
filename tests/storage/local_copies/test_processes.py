"""Several processes, one folder: one fetches, the others wait; who is killed leaves nothing that is trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from storage.local_copies.folder import CopyFolder
from tests.storage.local_copies.conftest import PIECE, go_on
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
SIZE = 9 * PIECE + 5

# arguments: folder, file of the bytes, key, digest, log of ranges, where to stop
PROCESS = f"""
import os, sys
from pathlib import Path
from storage.digest import Digest
from storage.local_copies import download
from storage.local_copies.copies import CopyLimits, LocalCopies
from storage.local_copies.source import Wanted
from storage.local_copies.folder import CopyFolder

download.PIECE_BYTES = {PIECE}
folder, source, key, digest, log, stop_at = sys.argv[1:]


class Body:
    def __init__(self, start, size):
        self.size, self.file = size, open(source, "rb")
        self.file.seek(start)
        self.read, self.close = self.file.read, self.file.close


class Source:
    def open_range(self, key, start, size):
        with open(log, "a") as asked:
            asked.write(f"{{start}}\\n")
        if start >= int(stop_at):
            os.write(1, b"stuck\\n")  # at once: several connections come here
            sys.stdin.read()
        return Body(start, size)


copies = LocalCopies(CopyFolder(Path(folder)), Source(), CopyLimits())
wanted = Wanted(Digest.parse(digest), os.path.getsize(source), key)
with copies.hold(wanted, lambda: None) as copy:
    print(copy.path.read_bytes() == Path(source).read_bytes(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path, folder, bucket, stored):
    """Another process that holds a copy until its input ends; its output is a line once it does, or is stuck."""
    blob = stored(SIZE)
    source = tmp_path / "source"
    source.write_bytes(bucket.objects[f"objects/{blob.key}"])
    log = tmp_path / "log"

    @contextmanager
    def start(stop_at: int = SIZE) -> Iterator[subprocess.Popen[bytes]]:
        arguments = [str(each) for each in (folder, source, blob.key, blob.digest, log, stop_at)]
        with subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    start.blob, start.log = blob, log
    return start


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_many_processes_one_fetches(start, open_copies, bucket):
    with ExitStack() as running:
        processes = [running.enter_context(start()) for _ in range(3)]
        with open_copies().hold(start.blob, go_on):
            assert [said(process) for process in processes] == [b"True"] * 3

    asked = start.log.read_text().split() if start.log.exists() else []
    assert len(asked) + bucket.calls["get"] == 10


def test_what_another_process_holds_makes_no_room(start, open_copies, stored, folder):
    with start() as process:
        assert said(process) == b"True"

        assert not CopyFolder(folder).drop(CopyFolder(folder).copy_of(start.blob.digest).name)

    assert CopyFolder(folder).drop(CopyFolder(folder).copy_of(start.blob.digest).name)
    assert not CopyFolder(folder).copy_of(start.blob.digest).exists()


def test_who_waits_for_a_process_that_is_killed_goes_on_where_it_was(start, open_copies, bucket, folder):
    copies = open_copies()
    with start(stop_at=6 * PIECE) as process, ThreadPoolExecutor(1) as pool:
        assert said(process) == b"stuck"
        wait_for(lambda: [each.completed for each in copies.under_way()] == [6 * PIECE], 20, "six pieces")
        waiting = pool.submit(copies.hold, start.blob, go_on)
        assert not CopyFolder(folder).copy_of(start.blob.digest).exists()

        process.kill()

        with waiting.result(30) as copy:
            assert copy.path.read_bytes() == bucket.objects[f"objects/{start.blob.key}"]
    assert bucket.calls["get"] == 4


def test_a_process_that_stands_still_is_not_waited_for_without_end(start, open_copies):
    with start(stop_at=6 * PIECE) as process:
        assert said(process) == b"stuck"

        with pytest.raises(Exception, match="has stood still"):
            open_copies(stall_s=0.3).hold(start.blob, go_on)
