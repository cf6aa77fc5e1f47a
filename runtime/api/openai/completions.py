"""POST /v1/completions: one prompt, as before there were chats. Source: the Ollama API, "POST /v1/completions"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flask import Response

from runtime.api import generate
from runtime.api.answer import Chunk
from runtime.api.errors import Refused
from runtime.api.openai import requests
from runtime.api.openai.content import json_kind
from runtime.api.openai.errors import broken_off
from runtime.api.openai.logprobs import TextLogprobs
from runtime.api.openai.replies import head, one_object, usage
from runtime.api.requests import Body
from runtime.api.serving import Call
from runtime.api.sse import CONTENT_TYPE, DONE, frame
from runtime.dialogue import Prompt
from runtime.messages import Done

JSON = dict[str, Any]
_PASSED_ON: Final = ("model", "suffix", "_debug_render_only")


def completions() -> Response:
    """What comes after `prompt`, whole unless `stream` is true; an empty prompt only loads the model."""
    body, started_ns = requests.read_request()
    is_stream, wants_usage = body.flag("stream", False), requests.wants_usage(body)
    call = Call.of(_native(body), started_ns)
    shared = head("cmpl-", "text_completion", call.model_name)
    begun = generate.begin(call)
    if isinstance(begun, Prompt):
        return one_object(shared | _said("", "stop") | {"usage": usage(None), "_debug_info": begun.debug_info()})
    if isinstance(begun, str):
        loaded = shared | _said("", begun) | {"usage": usage(None)}
        return Response(frame(loaded) + DONE, content_type=CONTENT_TYPE) if is_stream else one_object(loaded)
    if is_stream:
        return begun.stream(_frames(shared, begun.events(), wants_usage=wants_usage), broken_off, CONTENT_TYPE)
    answer = begun.whole()
    said = _said(answer.content, answer.done.reason, TextLogprobs().shown(answer.logprobs) if answer.logprobs else None)
    return begun.answered(answer, one_object(shared | said | {"usage": usage(answer.done)}))


def _native(body: Body) -> Body:
    """The request as /api/generate takes it. Raises Refused."""
    requests.check_single(body)
    penalties = {key: requests.number(body, key, 0.0) for key in ("frequency_penalty", "presence_penalty")}
    options = requests.sampling(body, "max_tokens") | {"top_p": requests.number(body, "top_p", 1.0)} | penalties
    return Body(
        {
            **{key: body.raw(key) for key in _PASSED_ON},
            "prompt": _prompt(body.raw("prompt")),
            "logprobs": body.raw("logprobs") is not None,
            "top_logprobs": body.integer("logprobs"),
            "options": options | _stop(body.raw("stop")),
        }
    )


def _prompt(given: object) -> str:
    """One text, alone or in an array. Raises Refused for several, and for tokens."""
    text = given[0] if isinstance(given, list) and len(given) == 1 else given
    if text is None or isinstance(text, str):
        return text or ""
    raise Refused(400, "prompt must be one string: this server gives one answer a request")


def _stop(given: object) -> JSON:
    if given is None:
        return {}
    texts = given if isinstance(given, list) else [given]
    for text in texts:
        if not isinstance(text, str):
            raise Refused(400, f"invalid type for 'stop' field: {json_kind(text)}")
    return {"stop": texts}


def _frames(shared: JSON, events: Iterator[Chunk | Done], *, wants_usage: bool) -> Iterator[bytes]:
    """A chunk for each piece of text, one that says why it ended, and the figures; all have some if they are wanted."""
    logprobs = TextLogprobs()
    nothing = {"usage": usage(None)} if wants_usage else {}
    for event in events:
        if isinstance(event, Done):
            yield frame(shared | _said("", event.reason) | nothing)
            if wants_usage:
                yield frame(shared | {"choices": [], "usage": usage(event)})
            yield DONE
            return
        shown = logprobs.shown(event.logprobs) if event.logprobs else None
        yield frame(shared | _said(event.parsed.content, None, shown) | nothing)


def _said(text: str, reason: str | None, logprobs: JSON | None = None) -> JSON:
    choice: JSON = {"text": text, "index": 0, "finish_reason": reason}
    return {"choices": [choice | ({"logprobs": logprobs} if logprobs is not None else {})]}
