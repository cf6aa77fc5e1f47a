"""Which messages the model is shown: the model's own, the request's, and as many as its context holds.

Source: the Ollama API, "Prompt assembly" and "Truncation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import RuntimeFailure
from runtime.parsing.thinking import ThinkingSplitter

Message = dict[str, Any]


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
    possible, for templates whose prompts grow with the messages. image_tokens: what each image counts for.
    """
    last = len(messages) - 1

    def attempt(start: int) -> Fitted | None:
        kept, prompt = _rendered(messages, render, start)
        images = image_tokens * count_images(kept)
        # a token is at least one byte, save a begin token: short prompts need no round trip to be counted
        is_over = len(prompt.encode()) + images >= limit and count(prompt) + images > limit
        if start < last and is_over:
            return None
        return Fitted(prompt, kept, len(messages) - len(kept), is_over)

    whole = attempt(0)
    if whole is not None or last <= 0:
        return whole or Fitted(render(messages), list(messages), 0)
    too_long, step = 0, 1
    while (fitted := attempt(min(too_long + step, last))) is None:
        too_long, step = too_long + step, 2 * step
    fits = min(too_long + step, last)
    while fits - too_long > 1:
        middle = (too_long + fits) // 2
        candidate = attempt(middle)
        if candidate is None:
            too_long = middle
        else:
            fits, fitted = middle, candidate
    return fitted


def count_images(messages: Sequence[Message]) -> int:
    return sum(len(message.get("images") or ()) for message in messages)


def mark_images(messages: Sequence[Message]) -> list[Message]:
    """Each image as `[img-N]`, N from 0 over all messages: where a text has `[img]`, else before the text."""
    marked, number = [], 0
    for message in messages:
        content, before = message.get("content", ""), ""
        for _ in message.get("images") or ():
            mark = f"[img-{number}]"
            if "[img]" in content:
                content = content.replace("[img]", mark, 1)
            else:
                before += mark
            number += 1
        marked.append(message | {"content": before + content})
    return marked


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


def _rendered(
    messages: Sequence[Message], render: Callable[[Sequence[Message]], str], start: int
) -> tuple[list[Message], str]:
    """The messages from `start` on, or from the next place where the template lets a conversation begin."""
    last = len(messages) - 1
    while True:
        kept = _from(messages, start)
        try:
            return kept, render(kept)
        except RuntimeFailure as error:
            if start in {0, last} or error.detail.get("exhausted"):
                raise
            start += 1


def _from(messages: Sequence[Message], start: int) -> list[Message]:
    """The messages from `start` on, after the system messages that came before."""
    return [message for message in messages[:start] if message["role"] == "system"] + list(messages[start:])
