"""POST /api/chat: the next message of a conversation. Source: the Ollama API, "POST /api/chat"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response

from runtime.api.answer import Running, Whole
from runtime.api.errors import Refused, not_supported
from runtime.api.replies import one_object
from runtime.api.serving import NOT_FOUND, Call
from runtime.messages import Done
from runtime.model import Model
from runtime.parsing.thinking import Split, ThinkingSplitter
from runtime.prompts import assemble
from runtime.templates.choose import chat_template

JSON = dict[str, Any]


def chat() -> Response:
    """The assistant's answer to `messages`, streamed unless `stream` is false; no messages load or unload the model."""
    call = Call.for_answer()
    if not call.model_name.strip():
        raise Refused(400, "model is required")
    messages = call.body.messages()
    model = call.find_model(NOT_FOUND)
    if not messages and call.keep_alive_s == 0:
        return one_object(_reply(call, done=True, done_reason=call.load_only(model)))
    conversation = _conversation(call, model, messages)
    if not messages:
        return one_object(_reply(call, done=True, done_reason=call.load_only(model)))
    call.refuse_format()
    lease, options = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    try:
        prompt = call.prompt(lease, conversation.messages, conversation.renderer(model))
        if call.body.flag("_debug_render_only", False):
            lease.close()
            return one_object(_reply(call, done=False, _debug_info={"rendered_template": prompt}))
        request = call.generation(model, prompt, options)
        splitter = ThinkingSplitter(prompt) if conversation.think else None
        running = Running(call, lease, request, load_ns, splitter)
        return running.respond(_lines(running), lambda answer: _whole(running, answer))
    except BaseException:
        lease.close()
        raise


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What the template is given."""

    messages: list[JSON]
    tools: list[JSON]
    think: bool | str | None

    def renderer(self, model: Model) -> Callable[[Sequence[JSON]], str]:
        template = chat_template(model.chat_template, model.template)
        return lambda kept: template.render(kept, self.tools, self.think)


def _conversation(call: Call, model: Model, messages: list[JSON]) -> _Conversation:
    """Raises Refused for what this model cannot do, the first reason first."""
    think = call.think(model)
    tools = call.body.objects("tools")
    call.require(model, ["tools"] if tools else [], "chat")
    if any(message["images"] for message in messages):
        raise not_supported("images")
    return _Conversation(assemble(model.system, model.messages, messages), tools, think)


def _reply(call: Call, split: Split = Split(), **fields: Any) -> JSON:  # noqa: B008  # frozen
    message: JSON = {"role": "assistant", "content": split.content}
    if split.thinking:
        message["thinking"] = split.thinking
    return call.reply(message=message, **fields)


def _lines(running: Running) -> Iterator[JSON]:
    for event in running.events():
        if isinstance(event, Done):
            yield _reply(running.call, done=True, done_reason=event.reason, **running.statistics(event))
        else:
            logprobs = {"logprobs": event.logprobs} if event.logprobs else {}
            yield _reply(running.call, event.split, **logprobs, done=False)


def _whole(running: Running, answer: Whole) -> JSON:
    logprobs = {"logprobs": answer.logprobs} if answer.logprobs else {}
    ending = {"done": True, "done_reason": answer.done.reason} | running.statistics(answer.done)
    return _reply(running.call, Split(answer.thinking, answer.content), **logprobs, **ending)
