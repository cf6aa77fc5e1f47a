"""Finding marker texts in a stream: what may be the beginning of one is held until it is decided."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_MARKER_CHARS = 512
MAX_SPACE_CHARS = 4096  # a longer run of white space is text, whatever follows


class Markers:
    """Some texts to look for. None of them may be a part of another."""

    def __init__(self, texts: Iterable[str]) -> None:
        ordered = sorted({text for text in texts if text}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")
        self._begun = {text[:end] for text in ordered for end in range(1, len(text))}
        self._longest = max((len(text) for text in ordered), default=1)

    def find(self, text: str, start: int = 0) -> re.Match[str] | None:
        """The first marker in `text`; the longest one of those that begin there."""
        return self._pattern.search(text, start)

    def held(self, text: str, start: int = 0) -> int:
        """The length of the longest end of `text[start:]` that begins a marker."""
        most = min(self._longest - 1, len(text) - start)
        return next((n for n in range(most, 0, -1) if text[len(text) - n :] in self._begun), 0)


class Trimmed:
    """Text between tags: white space beside a tag is dropped, so it waits until something follows it."""

    def __init__(self) -> None:
        self.is_fresh = True  # nothing but white space since the last tag, or since the beginning
        self._drops = False
        self._space: list[str] = []
        self._space_chars = 0

    def push(self, text: str) -> str:
        """What may be shown now."""
        if self._drops:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            return self._wait(text)
        self._drops = self.is_fresh = False
        shown = self.flush() + body
        return shown + self._wait(text[len(body) :])

    def border(self) -> None:
        """A tag stands here."""
        self.flush()
        self._drops = self.is_fresh = True

    def flush(self) -> str:
        """The white space that waited."""
        space = "".join(self._space)
        self._space, self._space_chars = [], 0
        return space

    def _wait(self, space: str) -> str:
        self._space_chars += len(space)
        if self._space_chars <= MAX_SPACE_CHARS:
            self._space.append(space)
            return ""
        waited = "".join(self._space)
        self._space = []  # the count stays: the rest of this run is text too
        return waited + space
