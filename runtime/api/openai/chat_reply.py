"""Answers of /v1/chat/completions, whole and in chunks. Source: the Ollama API, "POST /v1/chat/completions"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from runtime.api.answer import Chunk, Whole
from runtime.api.openai.logprobs import chat_logprobs
from runtime.api.openai.replies import arguments_text, head, usage
from runtime.api.sse import DONE, frame
from runtime.dialogue import Prompt
from runtime.messages import Done
from runtime.parsing.calls import ToolCall

JSON = dict[str, Any]
_ID: Final = "chatcmpl-"


def whole(model: str, answer: Whole) -> JSON:
    message: JSON = {"role": "assistant", "content": answer.content}
    if answer.thinking:
        message["reasoning"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = _described(answer.calls)
    choice: JSON = {"index": 0, "message": message, "finish_reason": _reason(answer.done, bool(answer.calls))}
    if answer.logprobs:
        choice["logprobs"] = chat_logprobs(answer.logprobs)
    return head(_ID, "chat.completion", model) | {"choices": [choice], "usage": usage(answer.done)}


def unsaid(model: str, prompt: Prompt) -> JSON:
    """The answer where its prompt was only made."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    shown = {"choices": [choice], "usage": usage(None), "_debug_info": prompt.debug_info()}
    return head(_ID, "chat.completion", model) | shown


def frames(model: str, events: Iterator[Chunk | Done], *, wants_usage: bool) -> Iterator[bytes]:
    """The chunks of a stream: the first has the role, the last but the figures says why the answer ended."""
    shared = head(_ID, "chat.completion.chunk", model)
    opening: JSON = {"role": "assistant", "content": ""}
    has_calls = False
    for event in events:
        if isinstance(event, Done):
            if opening:
                yield _chunk(shared, opening)
            yield _chunk(shared, {}, _reason(event, has_calls))
            if wants_usage:
                yield frame(shared | {"choices": [], "usage": usage(event)})
            yield DONE
            return
        has_calls = has_calls or bool(event.parsed.calls)
        logprobs = event.logprobs
        for delta in _deltas(event):
            yield _chunk(shared, opening | delta, logprobs=logprobs)
            opening, logprobs = {}, None


def _deltas(chunk: Chunk) -> list[JSON]:
    """Reasoning, content and calls, each by itself; one at least."""
    said = chunk.parsed
    deltas: list[JSON] = []
    if said.thinking:
        deltas.append({"reasoning": said.thinking})
    if said.content:
        deltas.append({"content": said.content})
    if said.calls:
        deltas.append({"tool_calls": _described(said.calls)})
    return deltas or [{"content": ""}]


def _chunk(shared: JSON, delta: JSON, reason: str | None = None, *, logprobs: list[JSON] | None = None) -> bytes:
    choice: JSON = {"index": 0, "delta": delta, "finish_reason": reason}
    if logprobs:
        choice["logprobs"] = chat_logprobs(logprobs)
    return frame(shared | {"choices": [choice]})


def _described(calls: Sequence[ToolCall]) -> list[JSON]:
    return [
        {
            "id": call.id,
            "index": call.index,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for call in calls
    ]


def _reason(done: Done, has_calls: bool) -> str:
    return "tool_calls" if has_calls and done.reason == "stop" else done.reason
