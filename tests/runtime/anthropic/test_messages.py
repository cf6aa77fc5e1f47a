"""Answers of the Anthropic dialect. Source: the Ollama API, "POST /v1/messages" and "Compatibility traps"."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import zstandard
from flask.testing import FlaskClient

from runtime.supervisor.client import Supervisor
from tests.anthropic_app import GREEDY, JSON, WEATHER, events, image, parsed, post, put_together, said, whole
from tests.ollama_app import whole as native

FORCED: JSON = {"model": "tooled", "tools": [WEATHER], "tool_choice": {"type": "any"}, "max_tokens": 200}
SCHEMA: JSON = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"], "additionalProperties": False}


def seen(block: JSON) -> JSON:
    return said([block, {"type": "text", "text": "what is it"}])


def test_a_whole_answer_has_the_shape_of_the_dialect(ollama: FlaskClient) -> None:
    message = whole(ollama, model="tiny")

    (block,) = message.pop("content")
    assert re.fullmatch("msg_[0-9a-f]{24}", message.pop("id"))
    assert block["type"] == "text"
    assert block["text"]
    assert message.pop("usage") == {"input_tokens": native_prompt_tokens(ollama), "output_tokens": 8}
    assert message == {
        "type": "message", "role": "assistant", "model": "tiny", "stop_reason": "max_tokens", "stop_sequence": None,
    }  # fmt: skip


def native_prompt_tokens(ollama: FlaskClient) -> int:
    count: int = native(ollama, "/api/chat", model="tiny", messages=[said("hello")])["prompt_eval_count"]
    return count


def test_it_says_what_the_native_route_says(ollama: FlaskClient) -> None:
    asked = {"model": "tiny", "messages": [said("tell me")]}

    theirs = native(ollama, "/api/chat", **asked, options={"temperature": 0, "num_predict": 8})

    assert whole(ollama, **asked)["content"] == [{"type": "text", "text": theirs["message"]["content"]}]


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "tiny"},
        {"model": "tiny", "stop_sequences": ["\x00"]},
        {"model": "thinker", "thinking": {"type": "enabled", "budget_tokens": 1024}},
        FORCED,
    ],
    ids=["text", "stops", "reasoning", "a call"],
)
def test_a_stream_puts_together_what_comes_whole(ollama: FlaskClient, asked: JSON) -> None:
    streamed, message = put_together(events(ollama, **asked)), whole(ollama, **asked)

    for each in (streamed, message):
        del each["id"]
        for block in each["content"]:
            block.pop("id", None)
    assert streamed == message
    assert message["content"]


def test_a_stream_begins_with_an_estimate_and_ends_with_the_count(ollama: FlaskClient) -> None:
    start, *_, delta, _ = events(ollama, model="tiny", messages=[said("hello " * 40)])

    counted = delta["usage"]["input_tokens"]
    assert start["message"]["stop_reason"] is None
    assert start["message"]["usage"]["output_tokens"] == 0
    assert 0 < start["message"]["usage"]["input_tokens"] < 4 * counted
    assert counted > 40


def test_trap_86_a_query_string_is_ignored(ollama: FlaskClient) -> None:
    assert post(ollama, "/v1/messages?beta=true", model="tiny", messages=[said("x")], **GREEDY).status_code == 200


def test_trap_71_keys_are_read_in_any_case(ollama: FlaskClient) -> None:
    assert post(ollama, Model="tiny", Messages=[said("x")], MAX_TOKENS=2).json["usage"]["output_tokens"] == 2


def test_trap_85_a_compressed_body_is_unpacked(ollama: FlaskClient) -> None:
    body = json.dumps({"model": "tiny", "messages": [said("x")], **GREEDY}).encode()

    answer = ollama.post(
        "/v1/messages", data=zstandard.compress(body), headers={"Content-Encoding": "zstd", "x-api-key": "none"}
    )

    assert answer.json["usage"]["output_tokens"] == 8


def test_trap_82_an_answer_without_words_has_an_empty_list(ollama: FlaskClient) -> None:
    (block,) = whole(ollama, model="tiny")["content"]
    asked = {"model": "tiny", "stop_sequences": [block["text"][0]]}

    message, streamed = whole(ollama, **asked), put_together(events(ollama, **asked))

    assert message["content"] == streamed["content"] == []
    assert message["stop_reason"] == streamed["stop_reason"] == "stop_sequence"
    assert message["stop_sequence"] == streamed["stop_sequence"] == block["text"][0]


def test_trap_38_an_answer_that_calls_a_tool_says_so(ollama: FlaskClient) -> None:
    message = whole(ollama, **FORCED)

    (block,) = message["content"]
    assert message["stop_reason"] == "tool_use"
    assert block.pop("id")
    assert block == {"type": "tool_use", "name": "get_weather", "input": {"city": "Paris", "days": 2}}


def test_a_streamed_call_has_its_arguments_in_one_piece(ollama: FlaskClient) -> None:
    begun, delta, ended = events(ollama, **FORCED)[1:-2]

    assert begun["content_block"]["input"] == {}
    assert delta["delta"] == {"type": "input_json_delta", "partial_json": '{"city":"Paris","days":2}'}
    assert ended == {"type": "content_block_stop", "index": 0}


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_weather"}, {"type": "any"}])
def test_one_tool_of_several_can_be_asked_for(ollama: FlaskClient, choice: JSON) -> None:
    other = {"name": "other", "input_schema": {"type": "object"}}

    (block,) = whole(ollama, **FORCED | {"tools": [other, WEATHER], "tool_choice": choice})["content"]

    assert block["name"] in ({"get_weather"} if choice["type"] == "tool" else {"get_weather", "other"})


def test_no_tool_is_shown_where_none_may_be_called(ollama: FlaskClient) -> None:
    asked = {"model": "tooled", "tools": [WEATHER]}
    shown, hidden, none = (
        whole(ollama, **asked)["usage"]["input_tokens"],
        whole(ollama, **asked, tool_choice={"type": "none"})["usage"]["input_tokens"],
        whole(ollama, model="tooled")["usage"]["input_tokens"],
    )

    assert hidden == none < shown


def test_trap_83_reasoning_that_a_model_cannot_do_is_not_asked_for(ollama: FlaskClient) -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}

    assert [block["type"] for block in whole(ollama, model="tiny", **thinking)["content"]] == ["text"]
    assert [block["type"] for block in whole(ollama, model="tiny", output_config={"effort": "max"})["content"]] == [
        "text"
    ]


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, "thinking"),
        ({"thinking": {"type": "disabled"}}, "text"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "text"),
    ],
)
def test_a_model_that_reasons_does_so_unless_it_is_told_not_to(ollama: FlaskClient, asked: JSON, kind: str) -> None:
    (block,) = whole(ollama, model="thinker", **asked)["content"]

    assert block["type"] == kind
    assert block[kind]


def test_images_are_seen(ollama: FlaskClient) -> None:
    red, again, blue = (
        whole(ollama, model="seeing", messages=[seen(each)]) for each in (image(), image(), image((0, 0, 255)))
    )

    assert red["content"] == again["content"] != blue["content"]


def test_an_image_that_is_none_is_refused_before_a_stream_begins(ollama: FlaskClient) -> None:
    none = image() | {"source": {"type": "base64", "data": "AAAA"}}

    refused = post(ollama, model="seeing", messages=[seen(none)], stream=True, **GREEDY)

    assert (refused.status_code, refused.content_type) == (400, "application/json")
    assert refused.json["error"]["type"] == "invalid_request_error"


def test_an_answer_can_be_held_to_a_schema(ollama: FlaskClient) -> None:
    held = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}

    message = whole(ollama, model="tiny", **held | {"max_tokens": 100})

    assert json.loads(message["content"][0]["text"]) == {"n": 7}
    assert message["stop_reason"] == "end_turn"


def test_what_was_begun_for_the_model_goes_on(ollama: FlaskClient) -> None:
    begun, plain = (
        whole(ollama, model="begun", messages=[said("count"), *more])["usage"]["input_tokens"]
        for more in ([said("one two", "assistant")], [])
    )

    assert begun > plain


def test_a_conversation_that_lost_its_beginning_says_so_in_a_header(ollama: FlaskClient) -> None:
    long = [said("hello " * 3000), said("yes", "assistant"), said("and now?")]

    for is_streamed in (True, False):
        answer = post(ollama, model="tiny", messages=long, stream=is_streamed, **GREEDY)
        assert answer.headers["Tonnage-Truncated"] == "true"


def test_trap_32_a_stream_that_breaks_off_ends_with_an_error_event(ollama: FlaskClient, ollama_run_dir: Path) -> None:
    answer = ollama.post(
        "/v1/messages",
        data=json.dumps({"model": "tiny", "messages": [said("x")], "max_tokens": 100_000, "stream": True}),
        buffered=False,
    )
    stream = answer.iter_encoded()
    assert b"message_start" in next(stream)
    (loaded,) = [model for model in Supervisor(ollama_run_dir).ps() if model.name == "tiny:latest"]
    os.kill(loaded.pid, signal.SIGKILL)

    *_, last = parsed(b"".join(stream).decode())
    answer.close()

    assert answer.status_code == 200
    assert set(last) == {"type", "error", "request_id"}
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"] == answer.headers["request-id"]
