"""POST /api/generate: one prompt. Source: the Ollama API, "POST /api/generate"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Response

from runtime.api.answer import Chunk, Running, Whole
from runtime.api.errors import Refused
from runtime.api.replies import one_object
from runtime.api.serving import NOT_FOUND, Call
from runtime.dialogue import Dialogue, Prompt
from runtime.messages import Done
from runtime.model import Model
from runtime.prompts import assemble
from runtime.supervisor.lease import Lease

JSON = dict[str, Any]


def generate() -> Response:
    """The answer to `prompt`, streamed unless `stream` is false; an empty prompt loads or unloads the model."""
    call = Call.from_request()
    begun = begin(call)
    if isinstance(begun, Running):
        return begun.respond(_lines(begun), lambda answer: _whole(begun, answer))
    if isinstance(begun, Prompt):
        return one_object(call.reply(response="", done=False, _debug_info=begun.debug_info()))
    return one_object(call.reply(response="", done=True, done_reason=begun))


def begin(call: Call) -> Running | Prompt | str:
    """As `runtime.api.chat.begin`, for a single prompt."""
    call.check_answer()
    model = call.find_model(NOT_FOUND)
    prompt_text = call.body.text("prompt")
    if not prompt_text and call.keep_alive_s == 0:
        return call.load_only(model)
    dialogue = Dialogue(model, tools=[], think=_check(call, model))
    if not prompt_text:
        return call.load_only(model)
    constraint = call.constraint(dialogue)
    lease, options = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    try:
        prompt = _prompt(call, dialogue, lease)
        if call.body.flag("_debug_render_only", False):
            return _rendered(call, lease, prompt)
        is_raw = call.body.flag("raw", False)
        reading = dialogue.raw_reading(prompt) if is_raw else dialogue.reading(prompt)
        request = call.generation(model, prompt, options, reading, constraint)
        context = tuple(call.body.integers("context") or ())
        request = replace(request, context=context, want_tokens=not is_raw)
        return Running(call, lease, request, load_ns, reading.parser, prompt.is_cut)
    except BaseException:
        lease.close()
        raise


def _check(call: Call, model: Model) -> bool | str | None:
    """Raises Refused for what cannot be asked of this model, the first reason first. Returns how to think."""
    body = call.body
    if "image" in model.capabilities:
        raise Refused(400, "image generation models are not currently supported")
    if body.flag("raw", False) and (body.text("template") or body.text("system") or body.integers("context")):
        raise Refused(400, "raw mode does not support template, system, or context")
    think = call.think(model)
    call.require(model, ["insert"] if body.text("suffix") else [], "generate")
    call.check_images(model, body.texts("images"))
    return think


def _prompt(call: Call, dialogue: Dialogue, lease: Lease) -> Prompt:
    """What the model continues: the prompt itself in raw mode, else a rendered conversation or a gap to fill."""
    body, model = call.body, dialogue.model
    text, suffix, images = body.text("prompt"), body.text("suffix"), body.texts("images")
    if body.flag("raw", False):
        return call.measured(lease, dialogue.bare(text, images))
    stored = model.messages if body.integers("context") is None else ()
    user: JSON = {"role": "user", "content": text, "images": images}
    messages = assemble(body.text("system") or model.system, stored, [user])
    if body.text("template") or suffix:
        return call.measured(lease, dialogue.direct(messages, text, suffix, template=body.text("template")))
    if not dialogue.has_template:
        return call.measured(lease, dialogue.bare(text, images))
    return call.prompt(lease, dialogue, messages)


def _rendered(call: Call, lease: Lease, prompt: Prompt) -> Prompt:
    context = call.body.integers("context")
    before = lease.detokenize(context) if context else ""
    lease.close()
    return replace(prompt, text=before + prompt.text)


def _lines(running: Running) -> Iterator[JSON]:
    for event in running.events():
        if isinstance(event, Done):
            yield running.call.reply(response="", **_end(running, event))
            return
        if event.parsed.content or event.parsed.thinking or event.logprobs:
            yield running.call.reply(response=event.parsed.content, **_extras(event), done=False)


def _whole(running: Running, answer: Whole) -> JSON:
    said: JSON = {"response": answer.content}
    if answer.thinking:
        said["thinking"] = answer.thinking
    if answer.logprobs:
        said["logprobs"] = answer.logprobs
    return running.call.reply(**said, **_end(running, answer.done))


def _extras(chunk: Chunk) -> JSON:
    extras: JSON = {"thinking": chunk.parsed.thinking} if chunk.parsed.thinking else {}
    return extras | ({"logprobs": chunk.logprobs} if chunk.logprobs else {})


def _end(running: Running, done: Done) -> JSON:
    end: JSON = {"done": True, "done_reason": done.reason}
    if done.context:
        end["context"] = done.context
    return end | running.statistics(done)
