"""POST /v1/messages and /v1/messages/count_tokens. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

import time
from functools import partial

from flask import Blueprint, Response

from runtime.api.answer import Running
from runtime.api.anthropic.errors import error_frame, json_response, refusal, request_id
from runtime.api.anthropic.replies import frames, message
from runtime.api.anthropic.translation import count_call, message_call
from runtime.api.chat import begin, rendered
from runtime.api.requests import Body
from runtime.api.serving import settings
from runtime.api.sse import CONTENT_TYPE
from runtime.api.v1_body import read_v1_body
from runtime.errors import RuntimeFailure
from runtime.prompts import IMAGE_TOKENS, without_marks
from storage.errors import StorageError

bp = Blueprint("anthropic", __name__)


@bp.post("/v1/messages")
def messages() -> Response:
    """The next message of a conversation, whole unless `stream` is true."""
    started_ns = time.monotonic_ns()
    body = _body()
    is_streamed = body.flag("stream", False)
    running = begin(message_call(body, started_ns))
    assert isinstance(running, Running)  # there are messages, and an answer to them is wanted
    if is_streamed:
        return running.stream(frames(running), partial(error_frame, request=request_id()), CONTENT_TYPE)
    answer = running.whole()
    return running.answered(answer, json_response(message(running, answer)))


@bp.post("/v1/messages/count_tokens")
def count_tokens() -> Response:
    """How many tokens the model would read, an image for as many as it counts when messages are chosen."""
    started_ns = time.monotonic_ns()
    call = count_call(_body(), started_ns)
    model, prompt = rendered(call)
    text = without_marks(prompt.text, len(prompt.images))
    with call.lease_vocabulary(model) as lease:
        tokens = lease.count(text, is_cancelled=call.is_cancelled)
    return json_response({"input_tokens": tokens + IMAGE_TOKENS * len(prompt.images)})


def _body() -> Body:
    return read_v1_body(settings().max_body_bytes)


@bp.after_request
def _identified(response: Response) -> Response:
    response.headers["Request-Id"] = request_id()  # where the official clients look for it
    return response


bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)
