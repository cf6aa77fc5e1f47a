"""From the bytes of tokens to text that may be shown: whole characters, and never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """The text of one answer as it grows.

    A token may end inside a character or inside what becomes a stop string; such an end is held back until what
    follows decides. Offsets count characters since the beginning of the answer.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.shown = 0
        self.stopped_at = ""  # the stop string that ended the answer

    def feed(self, piece: bytes) -> str:
        """The text that may be shown after `piece`; empty where all of it is held. Sets `stopped_at`."""
        return self._advance(self._decode(piece))

    def finish(self) -> str:
        """What was held back, once no token follows; nothing of a stop string, nor what came after it."""
        if self.is_stopped:
            return ""
        text = self._advance(self._decode(b"", True))
        held, self._held = self._held, ""
        self.shown += len(held)
        return text + held

    @property
    def is_stopped(self) -> bool:
        return bool(self.stopped_at)

    @property
    def received(self) -> int:
        """Characters decoded so far, held ones too."""
        return self.shown + len(self._held)

    def _advance(self, text: str) -> str:
        if not self._stops:
            self.shown += len(text)
            return text
        text = self._held + text
        found = _first_stop(text, self._stops)
        if found is None:
            cut = len(text) - _longest_beginning(text, self._stops)
            self._held = text[cut:]
        else:
            cut, self.stopped_at = found
            self._held = ""
        self.shown += cut
        return text[:cut]


def _first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the earliest stop string begins, and which it is."""
    found = [(at, stop) for at, stop in ((text.find(stop), stop) for stop in stops) if at >= 0]
    return min(found, default=None)


def _longest_beginning(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
