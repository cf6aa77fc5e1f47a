"""POST /api/generate: one prompt. Source: the Ollama API, "POST /api/generate"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Response

from runtime.api.answer import Chunk, Running, Whole
from runtime.api.errors import Refused, not_supported
from runtime.api.replies import one_object
from runtime.api.serving import NOT_FOUND, Call
from runtime.messages import Done
from runtime.model import Model
from runtime.parsing.thinking import ThinkingSplitter
from runtime.prompts import assemble
from runtime.supervisor.lease import Lease
from runtime.templates.choose import prompt_template

JSON = dict[str, Any]


def generate() -> Response:
    """The answer to `prompt`, streamed unless `stream` is false; an empty prompt loads or unloads the model."""
    call = Call.for_answer()
    model = call.find_model(NOT_FOUND)
    prompt = call.body.text("prompt")
    if not prompt and call.keep_alive_s == 0:
        return one_object(call.reply(response="", done=True, done_reason=call.load_only(model)))
    think = _check(call, model)
    if not prompt:
        return one_object(call.reply(response="", done=True, done_reason=call.load_only(model)))
    call.refuse_format()
    lease, options = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    try:
        text = _prompt(call, model, lease, think)
        if call.body.flag("_debug_render_only", False):
            return _rendered(call, lease, text)
        is_raw = call.body.flag("raw", False)
        context = tuple(call.body.integers("context") or ())
        request = replace(call.generation(model, text, options), context=context, want_tokens=not is_raw)
        running = Running(call, lease, request, load_ns, ThinkingSplitter(text) if think else None)
        return running.respond(_lines(running), lambda answer: _whole(running, answer))
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
    for field in ("suffix", "template", "images"):
        if body.raw(field):
            raise not_supported(field)
    return think


def _prompt(call: Call, model: Model, lease: Lease, think: bool | str | None) -> str:
    """The text that the model continues: the prompt itself in raw mode, else the rendered conversation."""
    prompt = call.body.text("prompt")
    template = None if call.body.flag("raw", False) else prompt_template(model.chat_template, model.template)
    if template is None:
        return prompt
    stored = model.messages if call.body.integers("context") is None else ()
    system = call.body.text("system") or model.system
    messages = assemble(system, stored, [{"role": "user", "content": prompt}])
    return call.prompt(lease, messages, lambda kept: template.render(kept, [], think))


def _rendered(call: Call, lease: Lease, prompt: str) -> Response:
    context = call.body.integers("context")
    before = lease.detokenize(context) if context else ""
    lease.close()
    return one_object(call.reply(response="", done=False, _debug_info={"rendered_template": before + prompt}))


def _lines(running: Running) -> Iterator[JSON]:
    for event in running.events():
        if isinstance(event, Done):
            yield running.call.reply(response="", **_end(running, event))
        else:
            yield running.call.reply(response=event.split.content, **_extras(event), done=False)


def _whole(running: Running, answer: Whole) -> JSON:
    said: JSON = {"response": answer.content}
    if answer.thinking:
        said["thinking"] = answer.thinking
    if answer.logprobs:
        said["logprobs"] = answer.logprobs
    return running.call.reply(**said, **_end(running, answer.done))


def _extras(chunk: Chunk) -> JSON:
    extras: JSON = {"thinking": chunk.split.thinking} if chunk.split.thinking else {}
    return extras | ({"logprobs": chunk.logprobs} if chunk.logprobs else {})


def _end(running: Running, done: Done) -> JSON:
    end: JSON = {"done": True, "done_reason": done.reason}
    if done.context:
        end["context"] = done.context
    return end | running.statistics(done)
