"""Streamed text → reasoning and answer, at the pair of tags that a model prints around its reasoning.

Source: the Ollama API, "Thinking". Only the first block, and only where the answer begins with it, is reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"


class _State(Enum):
    LOOKING = "the opening tag may still come"
    OPENED = "white space after the opening tag is dropped"
    THINKING = "reasoning"
    CLOSED = "white space after the closing tag is dropped"
    ANSWER = "everything is content"


@dataclass(frozen=True, slots=True)
class Split:
    """What a piece of text turned out to be."""

    thinking: str = ""
    content: str = ""


class ThinkingSplitter:
    """Feed it the answer piece by piece; text that may be the beginning of a tag is held until it is decided."""

    def __init__(self, prompt: str, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG) -> None:
        self._open, self._close = open_tag, close_tag
        # templates may print the opening tag themselves: then the answer begins inside the block
        self._state = _State.OPENED if prompt.rstrip().endswith(open_tag) else _State.LOOKING
        self._held = ""

    def feed(self, text: str) -> Split:
        self._held += text
        thinking = ""
        if self._state is _State.LOOKING:
            self._look()
        if self._state is _State.OPENED:
            self._drop_space(_State.THINKING)
        if self._state is _State.THINKING:
            thinking = self._think()
        if self._state is _State.CLOSED:
            self._drop_space(_State.ANSWER)
        if self._state is _State.ANSWER:
            content, self._held = self._held, ""
            return Split(thinking, content)
        return Split(thinking)

    def finish(self) -> Split:
        """What was held when the answer ended."""
        held, self._held = self._held, ""
        return Split(thinking=held) if self._state is _State.THINKING else Split(content=held)

    def _look(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(self._open):
            self._held, self._state = begun[len(self._open) :], _State.OPENED
        elif not self._open.startswith(begun):
            self._state = _State.ANSWER

    def _drop_space(self, following: _State) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._state = following

    def _think(self) -> str:
        thinking, tag, rest = self._held.partition(self._close)
        if tag:
            self._held, self._state = rest, _State.CLOSED
            return thinking
        held = _partial(self._held, self._close)
        thinking, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return thinking


def _partial(text: str, tag: str) -> int:
    """The length of the longest end of `text` that begins `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
