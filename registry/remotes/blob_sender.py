"""Files to a server's blobs over the Ollama API, a few at a time. Source: the Ollama API, "/api/blobs/:digest"."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from registry.remotes.api import Api
from registry.remotes.errors import RemoteError
from registry.remotes.package import LocalBlob, local_blob
from registry.remotes.progress import Bar, Progress
from registry.remotes.retry import Retry
from registry.remotes.text import one_line
from storage.digest import Digest

_STREAMS: Final = 4


def send_files(
    api: Api, paths: Iterable[Path], progress: Progress, *, first_pause_s: float = 0.5
) -> dict[Path, Digest]:
    """Bring over what the server lacks of these files; their digests. Raises RemoteError, and then nothing goes on."""
    sender = _Sender(api, progress, first_pause_s)
    with ThreadPoolExecutor(_STREAMS, thread_name_prefix="blob") as pool:
        jobs = {pool.submit(sender.send, path): path for path in dict.fromkeys(paths)}
        try:
            return {jobs[job]: job.result() for job in as_completed(jobs)}
        except BaseException:  # Ctrl-C too: the other streams must not hold the command for hours
            pool.shutdown(wait=False, cancel_futures=True)
            sender.stop()
            raise


class _Stopped(Exception):
    """Another stream has failed; this one has nothing to say of its own."""


class _Sender:
    """Files to one server, from several threads."""

    def __init__(self, api: Api, progress: Progress, first_pause_s: float) -> None:
        self._api, self._progress, self._first_pause_s = api, progress, first_pause_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End every stream, at once and for good."""
        self._stopped.set()
        self._api.abort()

    def send(self, path: Path) -> Digest:
        blob = self._hashed(path)
        retry = Retry(first_s=self._first_pause_s, sleep=self._pause, tell=self._progress.say)
        while True:
            try:
                if not self._api.has_blob(blob.digest):
                    self._upload(blob)
                return blob.digest
            except RemoteError as error:
                self._check()
                retry.pause(error)

    def _hashed(self, path: Path) -> LocalBlob:
        bar = self._progress.bar(f"hashing {one_line(path.name)}", path.stat().st_size)
        try:
            return local_blob(path, "", lambda position: self._move(bar, position))
        finally:
            bar.close()

    def _upload(self, blob: LocalBlob) -> None:
        bar = self._progress.bar(f"sending {blob.digest.encoded[:12]}", blob.size)
        try:
            self._api.send_blob(blob.digest, blob.size, lambda: self._pieces(blob, bar))
        finally:
            bar.close()

    def _pieces(self, blob: LocalBlob, bar: Bar) -> Iterator[bytes]:
        position = 0
        for piece in blob.part(0, blob.size):
            yield piece
            position += len(piece)
            self._move(bar, position)

    def _move(self, bar: Bar, position: int) -> None:
        self._check()
        bar.move(position)

    def _pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
