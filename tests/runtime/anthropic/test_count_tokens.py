"""POST /v1/messages/count_tokens: what the model would read."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from runtime.prompts import IMAGE_TOKENS
from tests.anthropic_app import JSON, WEATHER, image, post, said, whole

PATH = "/v1/messages/count_tokens"


def count(ollama: FlaskClient, **body: object) -> int:
    answer = post(ollama, PATH, **body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    assert list(answer.json) == ["input_tokens"]
    tokens: int = answer.json["input_tokens"]
    return tokens


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "tiny", "messages": [said("hello world")]},
        {"model": "tiny", "system": "be brief", "messages": [said("a"), said("b", "assistant"), said("c")]},
        {"model": "ns/alias:v1", "messages": [said("hello")]},
        {"model": "tooled", "messages": [said("hello")], "tools": [WEATHER]},
        {"model": "thinker", "messages": [said("hello")], "thinking": {"type": "disabled"}},
        {"model": "tiny", "messages": [said("hello")], "thinking": {"type": "enabled"}},
    ],
    ids=["one", "several", "the model's own", "tools", "no reasoning", "trap 83"],
)
def test_it_is_what_the_model_then_reads(ollama: FlaskClient, asked: JSON) -> None:
    assert count(ollama, **asked) == whole(ollama, **asked)["usage"]["input_tokens"]


def test_what_does_not_fit_is_counted_all_the_same(ollama: FlaskClient) -> None:
    once, thrice = (count(ollama, model="tiny", messages=[said("hello " * 3000)] * times) for times in (1, 3))

    assert once > 3000
    assert thrice > 2.9 * once


def test_an_image_counts_for_as_much_as_where_messages_are_chosen(ollama: FlaskClient) -> None:
    text = {"type": "text", "text": "what is it"}
    without, once, twice = (
        count(ollama, model="seeing", messages=[said([*images, text])])
        for images in ([], [image()], [image(), image()])
    )

    assert (once - without, twice - without) == (IMAGE_TOKENS, 2 * IMAGE_TOKENS)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": "tiny"}, 400, "messages is required"),
        ({"model": "nope", "messages": [said("x")]}, 404, "model 'nope' not found"),
        ({"model": "bert", "messages": [said("x")]}, 400, '"bert" does not support chat'),
    ],
)
def test_refusals_are_those_of_messages(ollama: FlaskClient, body: JSON, status: int, message: str) -> None:
    refused = post(ollama, PATH, **body)

    assert (refused.status_code, refused.json["error"]["message"]) == (status, message)
