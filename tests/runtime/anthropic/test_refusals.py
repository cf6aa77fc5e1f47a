"""What the Anthropic dialect refuses, and how. Source: the Ollama API, "Error shapes" and "POST /v1/messages"."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from runtime.api.anthropic.errors import refusal
from runtime.api.errors import Refused
from runtime.errors import QueueFull
from tests.anthropic_app import JSON, WEATHER, post, said

ASKED: JSON = {"model": "tiny", "messages": [said("x")], "max_tokens": 2}
NO_TOKENS = "max_tokens is required and must be positive"
NO_CHOICE = 'tool_choice must be of type "auto", "any", "none", or "tool" with a name'
BUSY = "server busy, please try again.  maximum pending requests exceeded"

REFUSALS = [
    ({}, 400, "model is required"),
    (ASKED | {"model": " "}, 400, "model is required"),
    (ASKED | {"model": "nope"}, 404, "model 'nope' not found"),
    (ASKED | {"model": "a//b"}, 400, "invalid model name"),
    (ASKED | {"model": "tiny:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    (ASKED | {"model": "bert"}, 400, '"bert" does not support chat'),
    (ASKED | {"max_tokens": None}, 400, NO_TOKENS),
    (ASKED | {"max_tokens": 0}, 400, NO_TOKENS),
    (ASKED | {"max_tokens": -1}, 400, NO_TOKENS),
    (ASKED | {"max_tokens": "2"}, 400, 'field "max_tokens" must be of type integer'),
    (ASKED | {"messages": None}, 400, "messages is required"),
    (ASKED | {"messages": []}, 400, "messages is required"),
    (ASKED | {"messages": ["x"]}, 400, 'field "messages" must be an array of objects'),
    (ASKED | {"system": 1}, 400, 'field "system" must be a string or an array of blocks'),
    (ASKED | {"stream": "yes"}, 400, 'field "stream" must be of type boolean'),
    (ASKED | {"temperature": "hot"}, 400, 'field "temperature" must be of type number'),
    (ASKED | {"top_p": True}, 400, 'field "top_p" must be of type number'),
    (ASKED | {"top_k": 1.5}, 400, 'field "top_k" must be of type integer'),
    (ASKED | {"stop_sequences": "x"}, 400, 'field "stop_sequences" must be of type array'),
    (ASKED | {"tools": [WEATHER]}, 400, "registry.ollama.ai/library/tiny:latest does not support tools"),
    (ASKED | {"tools": [{"name": ""}]}, 400, 'a tool needs a "name"'),
    (ASKED | {"tool_choice": {"type": "some"}}, 400, NO_CHOICE),
    (ASKED | {"tool_choice": {"type": "tool"}}, 400, NO_CHOICE),
    (ASKED | {"tool_choice": "any"}, 400, 'field "tool_choice" must be of type object'),
    (ASKED | {"model": "image"}, 400, "the manifest names no GGUF weights"),
]  # fmt: skip
TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error"}


@pytest.mark.parametrize(
    ("body", "status", "message"), REFUSALS, ids=[f"{number} {each[2][:40]}" for number, each in enumerate(REFUSALS)]
)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_refusals_have_the_status_words_and_shape_of_the_dialect(
    ollama: FlaskClient, body: JSON, status: int, message: str, is_streamed: bool
) -> None:
    refused = post(ollama, **{"stream": is_streamed} | body)

    told = refused.json
    assert refused.content_type == "application/json"
    assert refused.headers["request-id"] == told.pop("request_id")
    assert re.fullmatch("req_[0-9a-f]{24}", refused.headers["request-id"])
    assert (refused.status_code, told) == (
        status,
        {"type": "error", "error": {"type": TYPES[status], "message": message}},
    )


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b" \n", "EOF"),
        (b"{", "the request body is not valid JSON"),
        (b"[1]", "the request body must be a JSON object"),
        (b"null", "model is required"),
    ],
)
def test_a_body_that_is_none_is_refused(ollama: FlaskClient, path: str, body: bytes, message: str) -> None:
    refused = ollama.post(path, data=body)

    assert (refused.status_code, refused.json["error"]["message"]) == (400, message)


def test_a_body_that_is_not_what_its_encoding_says_is_refused(ollama: FlaskClient) -> None:
    refused = ollama.post("/v1/messages", data=b"{}", headers={"Content-Encoding": "zstd"})

    assert (refused.status_code, refused.json["error"]["type"]) == (400, "invalid_request_error")


def test_trap_66_a_full_queue_is_overloaded_and_says_when_to_return(ollama: FlaskClient) -> None:
    with ollama.application.test_request_context("/v1/messages"):
        refused = refusal(QueueFull(BUSY, retry_after_s=3))

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "3")
    assert refused.json is not None
    assert refused.json["error"] == {"type": "overloaded_error", "message": BUSY}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (499, "api_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_the_type_of_an_error_follows_its_status(ollama: FlaskClient, status: int, kind: str) -> None:
    with ollama.application.test_request_context("/v1/messages"):
        refused = refusal(Refused(status, "no"))

    assert refused.json is not None
    assert (refused.status_code, refused.json["error"]["type"]) == (status, kind)


def test_each_request_has_an_id_of_its_own(ollama: FlaskClient) -> None:
    ids = [post(ollama).headers["request-id"] for _ in range(2)]

    assert ids[0] != ids[1]
