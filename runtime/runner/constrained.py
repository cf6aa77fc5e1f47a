"""An answer that is held to a format, from the first content on: reasoning before it is free."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from runtime.errors import FormatInvalid
from runtime.runner.grammar import Grammars, Matcher
from runtime.structured.schema import Constraint

_HEADER_BYTES = 64  # of text that a NUL in a closing tag stands for
_MOST_TRIES = 64
_WHITE_SPACE = b" \t\r\n"


class _Phase(Enum):
    CONTENT = "held to the format; at its beginning, a tag may lead elsewhere"
    THOUGHT = "free until the closing tag"
    FREE = "another kind of answer"


class Constrained:
    """What may follow in one answer. One pass: nothing is computed twice when reasoning ends."""

    def __init__(self, constraint: Constraint, thought: tuple[str, str, bool] | None, grammars: Grammars) -> None:
        """thought: opening tag, closing tag, whether the answer begins between them. Raises FormatInvalid."""
        self._constraint = constraint
        self._grammars = grammars
        self._tags: dict[bytes, _Phase] = {tag.encode(): _Phase.FREE for tag in constraint.unless}
        self._closing = _closing(thought[1]) if thought else None
        self._reach = len(thought[1].encode()) + _HEADER_BYTES if thought else 0
        self._seen = b""  # the end of a thought, or the beginning of content
        openings = list(constraint.unless)
        if thought and not thought[2]:
            openings.append(thought[0])
            self._tags[thought[0].encode()] = _Phase.THOUGHT
        self._phase = _Phase.THOUGHT if thought and thought[2] else _Phase.CONTENT
        self._matcher: Matcher = grammars.matcher(constraint.schema, openings if thought or openings else None)
        self._matcher.allowed()  # what cannot begin at all is refused before anything is sent

    @property
    def is_complete(self) -> bool:
        """Whether the answer is what it has to be, and ends here. One that ends by a token of the model is too."""
        return self._phase is _Phase.CONTENT and self._matcher.is_complete

    def draw(self, pick: Callable[[NDArray[np.intp]], int]) -> int:
        """The next token, picked out of those that may follow. Raises FormatInvalid where none can."""
        allowed = self._allowed()
        for _ in range(_MOST_TRIES):
            token = pick(allowed)
            if self._fits(token):
                self._take(token)
                return token
            allowed = allowed[allowed != token]
        raise FormatInvalid("invalid format: the model does not come from its reasoning to such an answer")

    def _allowed(self) -> NDArray[np.intp]:
        if self._phase is _Phase.CONTENT:
            return self._matcher.allowed()
        # whoever reasons still owes the content; one that was given tools may also end with their call
        owes = self._phase is _Phase.THOUGHT and not self._constraint.unless
        return self._grammars.without_end if owes else self._grammars.everything

    def _fits(self, token: int) -> bool:
        """False for a token that ends the thought and goes on with what cannot be the beginning of the content."""
        begun = self._begun(token) if self._phase is _Phase.THOUGHT else None
        return not begun or self._matcher.could_take(begun)

    def _begun(self, token: int) -> bytes | None:
        """What follows the closing tag, where `token` brings its end."""
        assert self._closing is not None
        found = self._closing.search(self._seen + self._grammars.piece(token))
        return found.string[found.end() :] if found else None

    def _take(self, token: int) -> None:
        piece = self._grammars.piece(token)
        if self._phase is _Phase.CONTENT:
            self._matcher.take(token)
            self._look_for_tags(piece)
        elif self._phase is _Phase.THOUGHT:
            begun = self._begun(token)
            self._seen = (self._seen + piece)[-self._reach :]
            if begun is not None:
                self._phase, self._seen = _Phase.CONTENT, b""
                self._matcher.take_text(begun)
                self._look_for_tags(begun)

    def _look_for_tags(self, piece: bytes) -> None:
        """Go where the tag leads that the content begins with, once it is whole."""
        if not self._tags:
            return
        self._seen = (self._seen + piece).lstrip(_WHITE_SPACE)
        for tag, phase in self._tags.items():
            if self._seen.startswith(tag):
                self._enter(phase, self._seen[len(tag) :])
                return
        if not any(tag.startswith(self._seen) for tag in self._tags):
            self._tags = {}

    def _enter(self, phase: _Phase, rest: bytes) -> None:
        self._phase, self._seen = phase, rest
        if phase is _Phase.THOUGHT:  # there is only one
            self._tags = {tag: each for tag, each in self._tags.items() if each is not _Phase.THOUGHT}
            self._matcher = self._grammars.matcher(self._constraint.schema, list(self._constraint.unless))


def _closing(tag: str) -> re.Pattern[bytes]:
    parts = [re.escape(part.encode()) for part in tag.split("\0")]
    return re.compile((b".{0,%d}?" % _HEADER_BYTES).join(parts), re.DOTALL)
