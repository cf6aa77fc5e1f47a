"""Finding the names of declared tools in a stream of text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.parsing.calls import MAX_NAME_CHARS


@dataclass(frozen=True, slots=True)
class NameAt:
    """A declared name and where it stands, in characters of the stream."""

    name: str
    start: int
    end: int


class NameFinder:
    """The earliest declared name; of those that begin at one place, the longest."""

    def __init__(self, names: Iterable[str]) -> None:
        usable = {name for name in names if 0 < len(name) <= MAX_NAME_CHARS}
        self.names = frozenset(usable)
        self._sorted = sorted(usable)
        self._longest = max(map(len, usable), default=1)
        ordered = sorted(usable, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")
        self.restart(0)

    def restart(self, position: int) -> None:
        """Forget what was read; the next text begins at `position`."""
        self._window, self._position = "", position
        self._found: NameAt | None = None

    def feed(self, text: str) -> None:
        if self._found is None:
            self._window += text

    def found(self, *, is_end: bool = False) -> NameAt | None:
        """The name, as soon as no text that follows could make it another one."""
        if self._found is None:
            match = self._pattern.search(self._window)
            if match is None:
                self._forget(len(self._window) - self._longest)
            elif is_end or not self._may_grow(match.start()):
                start, end = match.span()
                self._found = NameAt(match.group(), self._position + start, self._position + end)
            else:
                self._forget(match.start() - self._longest)
        return self._found

    def has_any(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def within(self, text: str) -> str | None:
        """The declared name that stands in `text` as a word of its own."""
        for match in self._pattern.finditer(text):
            around = text[max(match.start() - 1, 0) : match.start()] + text[match.end() : match.end() + 1]
            if not any(sign.isalnum() or sign in "_-" for sign in around):
                return match.group()
        return None

    def is_begun(self, text: str) -> bool:
        """Whether `text` ends with the beginning of a name."""
        return any(self._begins(text[at:]) for at in range(max(0, len(text) - self._longest + 1), len(text)))

    def _may_grow(self, start: int) -> bool:
        """Whether a longer name that begins at `start` or before it may still be on its way."""
        window = self._window
        return any(self._begins(window[at:]) for at in range(max(0, len(window) - self._longest + 1), start + 1))

    def _begins(self, text: str) -> bool:
        """Whether a name begins with `text` and is longer."""
        following = bisect_right(self._sorted, text)
        return following < len(self._sorted) and self._sorted[following].startswith(text)

    def _forget(self, count: int) -> None:
        if count > 0:
            self._window, self._position = self._window[count:], self._position + count
