"""POST /api/chat: the next message of a conversation. Source: the Ollama API, "POST /api/chat"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Response

from runtime.api.answer import Running, Whole
from runtime.api.errors import Refused
from runtime.api.replies import one_object
from runtime.api.serving import NOT_FOUND, Call
from runtime.dialogue import Dialogue, Prompt
from runtime.messages import Done
from runtime.model import Model
from runtime.parsing.calls import Parsed, ToolCall
from runtime.prompts import assemble

JSON = dict[str, Any]
_MOST_TOOLS = 1024  # each is checked, rendered, and a branch of what a forced call is held to


def chat() -> Response:
    """The assistant's answer to `messages`, streamed unless `stream` is false; no messages load or unload the model."""
    call = Call.from_request()
    begun = begin(call)
    if isinstance(begun, Running):
        return begun.respond(_lines(begun), lambda answer: _whole(begun, answer))
    if isinstance(begun, Prompt):
        return one_object(_reply(call, done=False, _debug_info=begun.debug_info()))
    return one_object(_reply(call, done=True, done_reason=begun))


def begin(call: Call) -> Running | Prompt | str:
    """The answer, begun; the prompt alone where that was asked for; the `done_reason` of a load or an unload.

    Of /api and of every dialect that is translated into it. The caller reads or closes what is Running. Raises Refused.
    """
    call.check_answer()
    if not call.model_name.strip():
        raise Refused(400, "model is required")
    messages = call.body.messages()
    model = call.find_model(NOT_FOUND)
    if not messages and call.keep_alive_s == 0:
        return call.load_only(model)
    dialogue = _dialogue(call, model, messages)
    if not messages:
        return call.load_only(model)
    constraint = call.constraint(dialogue)
    lease, options = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    try:
        prompt = call.prompt(lease, dialogue, assemble(model.system, model.messages, messages))
        if call.body.flag("_debug_render_only", False):
            lease.close()
            return prompt
        reading = dialogue.reading(prompt)
        request = call.generation(model, prompt, options, reading, constraint)
        return Running(call, lease, request, load_ns, reading.parser, prompt.is_cut)
    except BaseException:
        lease.close()
        raise


def rendered(call: Call) -> tuple[Model, Prompt]:
    """All of the conversation as the model would read it; nothing is loaded, and nothing left out. Raises Refused."""
    call.check_answer()
    messages = call.body.messages()
    model = call.find_model(NOT_FOUND)
    dialogue = _dialogue(call, model, messages)
    conversation = dialogue.conversation(assemble(model.system, model.messages, messages))
    return model, dialogue.final(conversation, dialogue.render(conversation), is_cut=False)


def _dialogue(call: Call, model: Model, messages: list[JSON]) -> Dialogue:
    """Raises Refused for what this model cannot do, the first reason first."""
    think = call.think(model)
    tools = call.body.objects("tools")
    if len(tools) > _MOST_TOOLS:
        raise Refused(400, f"too many tools: {len(tools)}, and {_MOST_TOOLS} are the most of one request")
    choice = call.body.tool_choice()
    call.require(model, ["tools"] if tools else [], "chat")
    call.check_images(model, [image for message in messages for image in message["images"]])
    forced = choice.forced(tools)
    if choice.kind == "required" and not forced:
        raise Refused(400, "tool_choice names no tool of the request")
    return Dialogue(model, choice.of(tools) or None, think, forced)


def _reply(call: Call, parsed: Parsed = Parsed(), **fields: Any) -> JSON:  # noqa: B008  # frozen
    message: JSON = {"role": "assistant", "content": parsed.content}
    if parsed.thinking:
        message["thinking"] = parsed.thinking
    if parsed.calls:
        message["tool_calls"] = [_described(each) for each in parsed.calls]
    return call.reply(message=message, **fields)


def _described(call: ToolCall) -> JSON:
    return {"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": call.arguments}}


def _lines(running: Running) -> Iterator[JSON]:
    """Calls come in an object of their own, after the content that stood before them."""
    for event in running.events():
        if isinstance(event, Done):
            yield _reply(running.call, done=True, done_reason=event.reason, **running.statistics(event))
            return
        said = Parsed(event.parsed.thinking, event.parsed.content)
        logprobs = {"logprobs": event.logprobs} if event.logprobs else {}
        if said != Parsed() or logprobs:
            yield _reply(running.call, said, **logprobs, done=False)
        if event.parsed.calls:
            yield _reply(running.call, Parsed(calls=event.parsed.calls), done=False)


def _whole(running: Running, answer: Whole) -> JSON:
    logprobs = {"logprobs": answer.logprobs} if answer.logprobs else {}
    ending = {"done": True, "done_reason": answer.done.reason} | running.statistics(answer.done)
    return _reply(running.call, Parsed(answer.thinking, answer.content, answer.calls), **logprobs, **ending)
