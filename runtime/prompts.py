"""Which messages the model is shown: the model's own, the request's, and as many as its context holds.

Source: the Ollama API, "Prompt assembly" and "Truncation".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.parsing.thinking import ThinkingSplitter
from runtime.templates.errors import TemplateFailed

Message = dict[str, Any]


_MOST_RENDERS, _MOST_REFUSALS = 60, 16
_SEARCH_S = 10.0
_LONG_TOKEN = 16  # characters: hardly any text has so few tokens
_MARK = re.compile(r"\[img-(0|[1-9][0-9]{0,8})\]")
IMAGE_TOKENS = 768  # what an image counts for while messages are chosen, whatever the projector makes of it


@dataclass(frozen=True, slots=True)
class Fitted:
    """The prompt, and the messages that are in it. `dropped`: how many of the oldest are not.

    is_over: even the last message alone has more tokens than the context.
    """

    prompt: str
    messages: list[Message]
    dropped: int
    is_over: bool = False


def assemble(system: str, stored: Sequence[Message], request: Sequence[Message]) -> list[Message]:
    """The conversation to render: system text, the model's MESSAGEs, the request's messages; roles in lower case.

    The system text is left out only when the request itself begins with a system message.
    """
    messages = [*stored, *request]
    first = str(request[0].get("role", "")).lower() if request else ""
    if system and first != "system":
        messages.insert(0, {"role": "system", "content": system})
    return [message | {"role": str(message.get("role", "")).lower()} for message in messages]


def fit(
    messages: Sequence[Message],
    render: Callable[[Sequence[Message]], str],
    count: Callable[[str], int],
    limit: int,
    *,
    image_tokens: int = 0,
) -> Fitted:
    """The newest messages whose prompt has at most `limit` tokens; system messages and the last one always stay.

    The last message alone may still be too long: cutting tokens is the runner's part. Drops as few messages as
    possible, for templates whose prompts grow with the messages; a conversation may begin only where the template
    lets it. image_tokens: what each image counts for. Raises TemplateFailed.
    """
    trials = _Trials(messages, render, count, limit, image_tokens)
    last = len(messages) - 1
    too_long = -1
    if last <= 0 or trials.may_be_whole:
        whole = trials.render(0)
        if not whole.is_over or last <= 0:
            return whole
        too_long = 0
    start, best = trials.first_accepted(range(last, too_long, -1))
    step, gallops = 1, True
    while not best.is_over and start - too_long > 1 and trials.may_go_on:
        wanted = max(start - step, too_long + 1) if gallops else (start + too_long) // 2
        found = trials.accepted(range(wanted, start))
        if found is None:
            too_long, step = (too_long, 2 * step) if gallops and wanted > too_long + 1 else (wanted, step)
        elif found[1].is_over:
            too_long, gallops = found[0], False
        else:
            (start, best), step = found, 2 * step
    return best


class _Trials:
    """Renders of the end of a conversation, in bounded number and time: a prompt may cost seconds."""

    def __init__(
        self,
        messages: Sequence[Message],
        render: Callable[[Sequence[Message]], str],
        count: Callable[[str], int],
        limit: int,
        image_tokens: int,
    ) -> None:
        self._messages, self._render, self._count = messages, render, count
        self._limit, self._image_tokens = limit, image_tokens
        self._left = _MOST_RENDERS
        self._until = time.monotonic() + _SEARCH_S

    @property
    def may_be_whole(self) -> bool:
        """Whether the texts alone leave the prompt a chance to fit."""
        characters = sum(len(message.get("content") or "") for message in self._messages)
        return characters <= _LONG_TOKEN * self._limit

    @property
    def may_go_on(self) -> bool:
        return self._left > 0 and time.monotonic() < self._until

    def render(self, start: int) -> Fitted:
        """The prompt from message `start` on. Raises TemplateFailed."""
        self._left -= 1
        kept = _from(self._messages, start)
        prompt = self._render(kept)
        images = self._image_tokens * len(images_of(kept))
        # a token is at least one byte, save a begin token: short prompts need no round trip to be counted
        is_over = len(prompt.encode()) + images >= self._limit and self._count(prompt) + images > self._limit
        return Fitted(prompt, kept, len(self._messages) - len(kept), is_over)

    def accepted(self, starts: Sequence[int]) -> tuple[int, Fitted] | None:
        """The first of `starts` where the template lets a conversation begin; only the first few are tried."""
        try:
            return self.first_accepted(starts)
        except TemplateFailed as error:
            if error.detail.get("exhausted"):
                raise
            return None

    def first_accepted(self, starts: Sequence[int]) -> tuple[int, Fitted]:
        """`accepted`, or the template's first refusal."""
        refusal: TemplateFailed | None = None
        for start in starts[:_MOST_REFUSALS]:
            try:
                return start, self.render(start)
            except TemplateFailed as error:
                if error.detail.get("exhausted"):
                    raise
                refusal = refusal or error
            if not self.may_go_on:
                break
        raise refusal or TemplateFailed("template error: no message can begin the conversation")


def images_of(messages: Sequence[Message]) -> tuple[str, ...]:
    """All images, in order."""
    return tuple(image for message in messages for image in message.get("images") or ())


def mark_images(messages: Sequence[Message]) -> list[Message]:
    """Each image as `[img-N]`, N from 0 over all messages: where a text has that already or `[img]`, else before it."""
    marked, number = [], 0
    for message in messages:
        marks = [f"[img-{number + place}]" for place in range(len(message.get("images") or ()))]
        marked.append(message | {"content": _marked(message.get("content", ""), marks)})
        number += len(marks)
    return marked


def without_marks(text: str, images: int) -> str:
    """`text` without the marks of its first `images` images."""
    return _MARK.sub(lambda mark: "" if int(mark[1]) < images else mark[0], text)


def _marked(content: str, marks: Sequence[str]) -> str:
    """In one pass over the text: there may be thousands of marks, and megabytes of text."""
    texts = content.split("[img]", len(marks))
    placed = len(texts) - 1
    written = {mark[0] for mark in _MARK.finditer(content)} if placed < len(marks) else set()
    before = [mark for mark in marks[placed:] if mark not in written]
    return "".join([*before, *map("".join, zip(texts, [*marks[:placed], ""], strict=True))])


def without_old_reasoning(messages: Sequence[Message]) -> list[Message]:
    """The conversation without the reasoning that a model of this kind wrote into earlier answers."""
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    return [
        message | {"content": _answer_of(message.get("content", ""))}
        if at < last_user and message["role"] == "assistant"
        else message
        for at, message in enumerate(messages)
    ]


def _answer_of(text: str) -> str:
    splitter = ThinkingSplitter("")
    return splitter.feed(text).content + splitter.finish().content


def _from(messages: Sequence[Message], start: int) -> list[Message]:
    """The messages from `start` on, after the system messages that came before."""
    return [message for message in messages[:start] if message["role"] == "system"] + list(messages[start:])
