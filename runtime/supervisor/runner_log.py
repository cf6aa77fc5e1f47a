"""What runners write, in our log: the model's name in front, and never so much that it fills the disk.

llama.cpp quotes the file it reads, so its words are a stranger's: lines are short, of printable characters, and few.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

_LONGEST = 400  # characters of a line
_BURST, _PER_S = 200, 5.0  # lines at once, and in the long run
_TOLD_EVERY_S = 10.0  # how often it is said that lines are missing
log = logging.getLogger("tonnage.runner")


def readable(text: str, limit: int = _LONGEST) -> str:
    """`text` as one short line: a stranger's bytes neither start lines of their own nor move a terminal's cursor."""
    line = "".join(character if character.isprintable() else " " for character in text[: 2 * limit]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


class RunnerLog:
    """The lines of one runner. `last` is the newest one: that of a process that ends by itself tells why."""

    def __init__(self, name: str, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.last = ""
        self._source = f"{readable(name)}[{pid}]"
        self._clock = clock
        self._filled_at = self._told_at = clock()
        self._allowed = float(_BURST)
        self._left_out = 0

    async def follow(self, lines: asyncio.StreamReader) -> None:
        """Pass on what the runner writes, one line an event, until it ends."""
        while True:
            try:
                line = await lines.readline()
            except ValueError:  # longer than the limit: asyncio has dropped it
                self._left_out += 1
                continue
            if not line:
                self._tell_left_out()
                return
            self.take(line.decode("utf-8", "replace"))

    def take(self, line: str) -> None:
        """One line of the runner's."""
        text = readable(line)
        if not text:
            return
        self.last = text
        now = self._clock()
        self._allowed = min(self._allowed + (now - self._filled_at) * _PER_S, _BURST)
        self._filled_at = now
        if self._allowed < 1:
            self._left_out += 1
            if now - self._told_at >= _TOLD_EVERY_S:
                self._tell_left_out()
            return
        self._allowed -= 1
        if self._left_out:
            self._tell_left_out()
        log.info("%s %s", self._source, text)

    def _tell_left_out(self) -> None:
        if self._left_out:
            log.warning("%s %d lines left out", self._source, self._left_out)
        self._left_out, self._told_at = 0, self._clock()
