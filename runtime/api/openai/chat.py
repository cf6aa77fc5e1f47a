"""POST /v1/chat/completions. Source: the Ollama API, "POST /v1/chat/completions"."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from runtime.api import chat
from runtime.api.answer import Running
from runtime.api.openai import chat_reply, requests
from runtime.api.openai.errors import broken_off
from runtime.api.openai.messages import native_messages
from runtime.api.openai.replies import one_object
from runtime.api.requests import Body
from runtime.api.serving import Call
from runtime.api.sse import CONTENT_TYPE
from runtime.dialogue import Prompt

JSON = dict[str, Any]
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_PASSED_ON: Final = ("model", "tools", "tool_choice", "logprobs", "top_logprobs", "_debug_render_only")


def chat_completions() -> Response:
    """The assistant's next message, whole unless `stream` is true."""
    body, started_ns = requests.read_request()
    is_stream, wants_usage = body.flag("stream", False), requests.wants_usage(body)
    call = Call.of(_native(body), started_ns)
    begun = chat.begin(call)
    if isinstance(begun, Prompt):
        return one_object(chat_reply.unsaid(call.model_name, begun))
    assert isinstance(begun, Running)  # there are messages
    if is_stream:
        frames = chat_reply.frames(call.model_name, begun.events(), wants_usage=wants_usage)
        return begun.stream(frames, broken_off, CONTENT_TYPE)
    answer = begun.whole()
    return begun.answered(answer, one_object(chat_reply.whole(call.model_name, answer)))


def _native(body: Body) -> Body:
    """The request as /api/chat takes it. Raises Refused."""
    requests.check_single(body)
    wanted = body.mapping("response_format")
    return Body(
        {
            **{key: body.raw(key) for key in _PASSED_ON},
            "messages": native_messages(body),
            "format": requests.response_format(wanted, Body(wanted or {}).mapping("json_schema")),
            "think": requests.think(body),
            "options": requests.sampling(body, *_LIMITS) | {"top_p": requests.number(body, "top_p", 1.0)} | _stop(body),
        }
    )


def _stop(body: Body) -> JSON:
    """One text or several; what is none of these is left out, as the reference does."""
    given = body.raw("stop")
    if not isinstance(given, str | list):
        return {}
    return {"stop": [text for text in ([given] if isinstance(given, str) else given) if isinstance(text, str)]}
