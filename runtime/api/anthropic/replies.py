"""Answers of this dialect, whole or as events. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from secrets import token_hex
from typing import Any

from runtime.api.answer import Chunk, Running, Whole
from runtime.api.replies import encode
from runtime.api.sse import frame
from runtime.messages import Done
from runtime.parsing.calls import ToolCall
from runtime.prompts import IMAGE_TOKENS

JSON = dict[str, Any]
_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_CHARACTERS_A_TOKEN = 4


def message(running: Running, answer: Whole) -> JSON:
    """The whole answer: reasoning, text and calls, those that there are."""
    content: list[JSON] = []
    if answer.thinking:
        content.append(_begun("thinking") | {"thinking": answer.thinking})
    if answer.content:
        content.append(_begun("text") | {"text": answer.content})
    content += [_call(call) | {"input": call.arguments} for call in answer.calls]
    ended = _ending(running, answer.done, has_calls=bool(answer.calls))
    return _message(running, content) | ended | {"usage": _usage(answer.done)}


def frames(running: Running) -> Iterator[bytes]:
    """The answer as events. The runner is heard before the first of them: what fails until then has a status."""
    events = running.events()
    first = next(events)
    yield frame({"type": "message_start", "message": _start(running, first)}, "message_start")
    blocks = _Blocks()
    for event in chain([first], events):
        if isinstance(event, Chunk):
            yield from blocks.add(event)
            continue
        yield from blocks.close()
        ended = {"delta": _ending(running, event, has_calls=blocks.has_calls), "usage": _usage(event)}
        yield frame({"type": "message_delta", **ended}, "message_delta")
        yield frame({"type": "message_stop"}, "message_stop")


class _Blocks:
    """Content blocks, one after the other: each ends before the next begins."""

    def __init__(self) -> None:
        self.has_calls = False
        self._index = -1
        self._open = ""

    def add(self, chunk: Chunk) -> Iterator[bytes]:
        for kind, text in (("thinking", chunk.parsed.thinking), ("text", chunk.parsed.content)):
            if text:
                if self._open != kind:
                    yield from self._begin(_begun(kind))
                yield self._delta({"type": f"{kind}_delta", kind: text})
        for call in chunk.parsed.calls:
            self.has_calls = True
            yield from self._begin(_call(call))
            yield self._delta({"type": "input_json_delta", "partial_json": encode(call.arguments).decode()})
            yield from self.close()

    def close(self) -> Iterator[bytes]:
        if self._open:
            self._open = ""
            yield frame({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _begin(self, block: JSON) -> Iterator[bytes]:
        yield from self.close()
        self._index += 1
        self._open = str(block["type"])
        begun = {"type": "content_block_start", "index": self._index, "content_block": block}
        yield frame(begun, "content_block_start")

    def _delta(self, delta: JSON) -> bytes:
        return frame({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")


def _message(running: Running, content: list[JSON]) -> JSON:
    named = {"id": f"msg_{token_hex(12)}", "type": "message", "role": "assistant"}
    return named | {"model": running.call.model_name, "content": content}


def _start(running: Running, first: Chunk | Done) -> JSON:
    """The message before it says anything. Its `input_tokens` are an estimate until the runner has told the number."""
    prompt, images = running.request.prompt, running.request.images
    estimate = max(len(prompt) // _CHARACTERS_A_TOKEN, 1) + IMAGE_TOKENS * len(images)
    read = first.prompt_tokens if isinstance(first, Done) else estimate
    ended = {"stop_reason": None, "stop_sequence": None}
    return _message(running, []) | ended | {"usage": {"input_tokens": read, "output_tokens": 0}}


def _begun(kind: str) -> JSON:
    """An empty block. Nobody signs reasoning here; clients want the key."""
    return {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})


def _call(call: ToolCall) -> JSON:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _ending(running: Running, done: Done, *, has_calls: bool) -> JSON:
    """Why the answer ended. A stop string that is the model's own is its way to end a turn; the client knows none."""
    if has_calls:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if done.stopped_at and done.stopped_at in (running.call.body.mapping("options") or {}).get("stop", ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": done.stopped_at}
    return {"stop_reason": _REASONS[done.reason], "stop_sequence": None}


def _usage(done: Done) -> JSON:
    return {"input_tokens": done.prompt_tokens, "output_tokens": done.tokens}
