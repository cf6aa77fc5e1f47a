"""Files on their way to a server's blobs, several at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.remotes.api import Api
from registry.remotes.blob_sender import send_files
from registry.remotes.errors import Unreachable
from registry.remotes.http import Outbound
from registry.remotes.progress import Bar
from storage.digest import Digest
from tests.server import Server, running_server

GIB = 2**30


class Watched:
    """Progress that is remembered, and that can be interrupted where a label begins with `interrupt_at`."""

    def __init__(self, interrupt_at: str = "none") -> None:
        self.lines: list[str] = []
        self.reached: dict[str, int] = {}
        self.interrupt_at = interrupt_at

    def say(self, line: str) -> None:
        self.lines.append(line)

    def bar(self, label: str, total: int) -> Bar:
        return _WatchedBar(self, label)


class _WatchedBar:
    def __init__(self, watched: Watched, label: str) -> None:
        self._watched, self._label = watched, label

    def move(self, position: int) -> None:
        if self._label.startswith(self._watched.interrupt_at):
            raise KeyboardInterrupt
        self._watched.reached[self._label] = position

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("sender") / "data") as running:
        yield running


def test_every_file_arrives_once(server: Server, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(7)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 300_000)
    api, watched = Api(Outbound(), server.url), Watched()

    digests = send_files(api, [*paths, paths[0]], watched)

    assert digests == {path: Digest.of(path.read_bytes()) for path in paths}
    assert all(map(api.has_blob, digests.values()))
    sent = [label for label in watched.reached if label.startswith("sending ")]
    assert len(sent) == len(paths)
    assert {watched.reached[label] for label in sent} == {300_000}


def test_an_interrupt_ends_every_stream_at_once(server: Server, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    with large.open("wb") as file:
        file.truncate(8 * GIB)  # takes seconds to hash, and no space
    watched = Watched(interrupt_at="sending ")
    start = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        send_files(Api(Outbound(), server.url), [large, small], watched)

    assert watched.reached["hashing large"] < 8 * GIB
    assert time.monotonic() - start < 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("blob")]


def test_a_server_that_is_gone_is_tried_a_few_times(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    watched = Watched()

    with pytest.raises(Unreachable):
        send_files(Api(Outbound(), "http://127.0.0.1:1"), [path], watched, first_pause_s=0.01)

    assert len(watched.lines) == 2
    assert all("trying again in" in line for line in watched.lines)
