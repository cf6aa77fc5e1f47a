"""Progress of transfers on stderr: bars for people, one line a step for logs."""

from __future__ import annotations

import sys
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm


class Bar(Protocol):
    """How far one piece of work has come, in bytes."""

    def move(self, position: int) -> None:
        """It stands at `position` now; going back is allowed, after a cut it is the truth."""

    def close(self) -> None: ...


class Progress(Protocol):
    """Where a transfer tells what it does."""

    def say(self, line: str) -> None:
        """One line of its own."""

    def bar(self, label: str, total: int) -> Bar:
        """A bar for `total` bytes of work called `label`."""


class _TqdmBar:
    def __init__(self, label: str, total: int, stream: TextIO) -> None:
        self._bar: tqdm[NoReturn] = tqdm(
            total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1000, file=stream, dynamic_ncols=True
        )

    def move(self, position: int) -> None:
        self._bar.update(position - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class TerminalProgress:
    """Bars that redraw themselves."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        tqdm.write(line, file=self._stream)

    def bar(self, label: str, total: int) -> Bar:
        return _TqdmBar(label, total, self._stream)


class _NoBar:
    def move(self, position: int) -> None:
        pass

    def close(self) -> None:
        pass


class LineProgress:
    """One line a step, for files and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def bar(self, label: str, total: int) -> Bar:
        self.say(f"{label} ({total} bytes)")
        return _NoBar()


def progress_on(stream: TextIO | None = None) -> Progress:
    """Bars if `stream` (stderr) is a terminal, lines if not."""
    stream = stream or sys.stderr
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)
