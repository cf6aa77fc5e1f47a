"""The process that makes weights smaller: started as clean as a runner, heard, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from runtime.errors import QuantizeFailed, RequestCancelled
from runtime.process import clean_command, clean_environment, how_ended
from runtime.runner.quantize import QuantizeSettings
from runtime.supervisor.runner_log import readable
from runtime.wire import Channel, FrameInvalid

POLL_S = 0.1  # how often it is asked whether anybody still wants it
_SILENT_S = 300.0  # without a word, and without a byte more in the target
_LEAVE_S = 10.0
_LONGEST_MESSAGE = 400
_LAST_WORDS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Work:
    """A process that quantises, the way to it, and what it wrote of itself."""

    settings: QuantizeSettings
    process: subprocess.Popen[bytes]
    channel: Channel
    words: IO[bytes]

    def follow(
        self, sizes: Mapping[str, int], progress: Callable[[int, int], None], is_cancelled: Callable[[], bool]
    ) -> None:
        """Hear of each tensor until all are done. sizes: bytes of each. Raises QuantizeFailed, RequestCancelled."""
        total = sum(sizes.values())
        done = at_work = written = 0
        heard_at = asked_at = time.monotonic()
        while True:
            if time.monotonic() - asked_at >= POLL_S:
                if is_cancelled():
                    raise RequestCancelled("request canceled")
                asked_at = time.monotonic()
            try:
                event = self.channel.receive(timeout_s=POLL_S)
            except TimeoutError:
                if written != (written := self._written()):
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > _SILENT_S:
                    raise self._failure(f"nothing was done for {_SILENT_S:g} s") from None
                continue
            except (OSError, FrameInvalid):
                event = None
            heard_at = time.monotonic()
            match event:
                case {"event": "tensor", "name": str(name)}:
                    done, at_work = min(done + at_work, total), sizes.get(name, 0)
                    progress(done, total)
                case {"event": "done"}:
                    if self._wait() != 0:
                        raise self._end()
                    progress(total, total)
                    return
                case {"event": "failed", "message": message}:
                    raise self._failure(str(message))
                case _:
                    raise self._end()

    def _written(self) -> int:
        try:
            return Path(self.settings.target).stat().st_size
        except FileNotFoundError:
            return 0

    def _wait(self) -> int:
        """Its status; one that does not leave is made to."""
        try:
            return self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _failure(self, reason: str) -> QuantizeFailed:
        """llama.cpp's words as one line, without the places of files."""
        for place, name in ((self.settings.source, "the weights"), (self.settings.target, "the result")):
            reason = reason.replace(place, name)
        return QuantizeFailed(f"quantization failed: {readable(reason, _LONGEST_MESSAGE)}")

    def _end(self) -> QuantizeFailed:
        """How it ended without having said so, with its last words: llama.cpp says why it aborts."""
        how = how_ended(self._wait())
        self.words.seek(max(self.words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES, 0))
        lines = self.words.read(_LAST_WORDS_BYTES).decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return self._failure(f"its process {how}: {last}" if last else f"its process {how}")


@contextmanager
def started(settings: QuantizeSettings) -> Iterator[Work]:
    """The process; it has ended when this is left, however that is. Raises QuantizeFailed."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with TemporaryFile() as words:
        try:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                clean_command("runtime.runner.quantize"),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=words,
                env=clean_environment(),
                start_new_session=True,
            )
        except OSError as error:
            channel.close()
            raise QuantizeFailed(f"quantization failed: no process can be started: {error.strerror}") from None
        finally:
            theirs.close()
        try:
            with suppress(OSError):  # it has ended already: to be heard when it is asked
                channel.send(settings.to_json(), timeout_s=_LEAVE_S)
            yield Work(settings, process, channel, words)
        finally:
            process.kill()
            process.wait()
            channel.close()
