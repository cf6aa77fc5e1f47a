"""POST /v1/responses: a conversation as items. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from runtime.api import chat
from runtime.api.answer import Running
from runtime.api.errors import Refused
from runtime.api.openai import requests
from runtime.api.openai.errors import broken_off
from runtime.api.openai.replies import one_object
from runtime.api.openai.responses_body import ResponseBody, output_of
from runtime.api.openai.responses_input import native_messages
from runtime.api.openai.responses_stream import frames
from runtime.api.openai.responses_tools import native_choice, native_tools
from runtime.api.requests import Body
from runtime.api.serving import Call
from runtime.api.sse import CONTENT_TYPE

JSON = dict[str, Any]
_STATE: Final = ("previous_response_id", "conversation")


def responses() -> Response:
    """The items that the model answers with, whole unless `stream` is true."""
    body, started_ns = requests.read_request()
    is_stream = body.flag("stream", False)
    call = Call.of(_native(body), started_ns)
    made = ResponseBody(call.model_name, body)
    begun = chat.begin(call)
    assert isinstance(begun, Running)  # there are messages, and no prompt was asked for
    if is_stream:
        response = begun.stream(frames(made, begun.events()), broken_off, CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-cache"
        return response
    answer = begun.whole()
    return begun.answered(answer, one_object(made.completed(output_of(answer), answer.done)))


def _native(body: Body) -> Body:
    """The request as /api/chat takes it. Raises Refused."""
    for key in _STATE:
        if body.raw(key):  # an answer without what was said before would look like one with it
            raise Refused(400, f"{key} is not supported: this server keeps no responses; send the whole conversation")
    messages = native_messages(body)
    if not messages:
        raise Refused(400, "input is required")
    format_ = Body(body.mapping("text") or {}).mapping("format")
    options = requests.sampling(body, "max_output_tokens")
    top_p = requests.number(body, "top_p")
    return Body(
        {
            "model": body.raw("model"),
            "messages": messages,
            "tools": native_tools(body),
            "tool_choice": native_choice(body),
            "format": requests.response_format(format_, format_),
            "think": requests.think(body),
            "options": options | ({} if top_p is None else {"top_p": top_p}),
        }
    )
