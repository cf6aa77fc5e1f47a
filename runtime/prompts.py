"""Which messages the model is shown: the model's own, the request's, and as many as its context holds.

Source: the Ollama API, "Prompt assembly" and "Truncation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import RuntimeFailure

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The prompt, and the messages that are in it. `dropped`: how many of the oldest are not."""

    prompt: str
    messages: list[Message]
    dropped: int


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
) -> Fitted:
    """The newest messages whose prompt has at most `limit` tokens; system messages and the last one always stay.

    The last message alone may still be too long: cutting tokens is the runner's part. Drops as few messages as
    possible, for templates whose prompts grow with the messages.
    """
    last = len(messages) - 1

    def attempt(start: int) -> Fitted | None:
        kept, prompt = _rendered(messages, render, start)
        # a token is at least one byte, save a begin token: short prompts need no round trip to be counted
        if start == last or len(prompt.encode()) < limit or count(prompt) <= limit:
            return Fitted(prompt, kept, len(messages) - len(kept))
        return None

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
