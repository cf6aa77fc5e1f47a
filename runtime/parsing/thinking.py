"""Streamed text → reasoning and answer, at the pair of tags that a model prints around its reasoning.

Source: the Ollama API, "Thinking". Only the first block, and only where the answer begins with it, is reasoning.
"""

from __future__ import annotations

from enum import Enum

from runtime.parsing.calls import Parsed
from runtime.parsing.markers import MAX_MARKER_CHARS, MAX_SPACE_CHARS, Markers

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"


class _State(Enum):
    LOOKING = "the opening tag may still come"
    OPENED = "white space after the opening tag is dropped"
    THINKING = "reasoning"
    CLOSED = "white space after the closing tag is dropped"
    ANSWER = "everything is content"


class ThinkingSplitter:
    """Feed it the answer piece by piece; text that may be the beginning of a tag is held until it is decided."""

    def __init__(
        self, prompt: str, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG, *, is_inside: bool = False
    ) -> None:
        """is_inside: the prompt ends in the middle of reasoning that the answer continues."""
        self._open, self._close = open_tag[:MAX_MARKER_CHARS], Markers([close_tag[:MAX_MARKER_CHARS]])
        # templates may print the opening tag themselves: then the answer begins inside the block
        self._state = _State.OPENED if prompt.rstrip().endswith(open_tag) else _State.LOOKING
        if is_inside:
            self._state = _State.THINKING
        self._space: list[str] = []  # before anything else was said; content, if no opening tag follows
        self._space_chars = 0
        self._held = ""

    def feed(self, text: str) -> Parsed:
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
            return Parsed(thinking, content)
        return Parsed(thinking)

    def finish(self) -> Parsed:
        """What was held when the answer ended."""
        held, self._held = "".join(self._space) + self._held, ""
        self._space = []
        return Parsed(thinking=held) if self._state is _State.THINKING else Parsed(content=held)

    def _look(self) -> None:
        begun = self._held.lstrip()
        space = self._held[: len(self._held) - len(begun)]
        self._space.append(space)
        self._space_chars += len(space)
        self._held = begun
        if self._space_chars > MAX_SPACE_CHARS or not (begun.startswith(self._open) or self._open.startswith(begun)):
            self._held, self._state = "".join(self._space) + begun, _State.ANSWER
            self._space = []
        elif begun.startswith(self._open):
            self._held, self._state = begun[len(self._open) :], _State.OPENED
            self._space = []

    def _drop_space(self, following: _State) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._state = following

    def _think(self) -> str:
        closing = self._close.find(self._held)
        if closing is not None:
            thinking, self._held = self._held[: closing.start()], self._held[closing.end() :]
            self._state = _State.CLOSED
            return thinking
        end = len(self._held) - self._close.held(self._held)
        thinking, self._held = self._held[:end], self._held[end:]
        return thinking
