"""POST /v1/responses. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from runtime.messages import Done, Piece
from runtime.supervisor.lease import Lease
from tests.openai_app import PARAMETERS, RESPONSES, error, image_uri, post, whole

JSON = dict[str, Any]
GREEDY: JSON = {"max_output_tokens": 8, "temperature": 0}
WARM: JSON = {"max_output_tokens": 400, "temperature": 0.8}
FLAT: JSON = {"type": "function", "name": "weather", "description": "d", "parameters": PARAMETERS, "strict": True}
FORCED: JSON = {"model": "tooled", "input": "q", "tools": [FLAT], "tool_choice": "required"} | WARM
STATELESS = "is not supported: this server keeps no responses; send the whole conversation"


def events(client: FlaskClient, **body: Any) -> list[JSON]:
    """The data of every event, whose name is its type."""
    answer = post(client, RESPONSES, **body, stream=True)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    *told, rest = answer.text.split("\n\n")
    assert rest == ""
    found = []
    for event in told:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def says(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Have every model answer with these pieces."""
    pieces = [*map(Piece, texts), Done("stop", 5, 1, len(texts), 1)]
    monkeypatch.setattr(Lease, "generate", lambda *_, **__: iter(pieces))


def test_a_response_is_one_message_and_what_was_asked(ollama: FlaskClient) -> None:
    answer = whole(ollama, RESPONSES, model="TINY", input="hello", **GREEDY, metadata={"a": "b"}, instructions="be")

    assert re.fullmatch(r"resp_\d+", answer["id"])
    assert answer.items() >= {
        "object": "response", "status": "completed", "model": "TINY", "incomplete_details": None, "error": None,
        "previous_response_id": None, "instructions": "be", "tools": [], "tool_choice": "auto", "temperature": 0,
        "truncation": "disabled", "parallel_tool_calls": True, "text": {"format": {"type": "text"}}, "top_p": None,
        "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0, "reasoning": None, "max_output_tokens": 8,
        "max_tool_calls": None, "store": False, "background": False, "service_tier": "default",
        "metadata": {"a": "b"}, "safety_identifier": None, "prompt_cache_key": None,
    }.items()  # fmt: skip
    assert answer["created_at"] <= answer["completed_at"]
    (message,) = answer["output"]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    (part,) = message["content"]
    assert list(part) == ["type", "text", "annotations", "logprobs"]
    assert len(part["text"]) >= 8
    usage = answer["usage"]
    assert usage["output_tokens"] == 8
    assert usage["total_tokens"] == usage["input_tokens"] + 8
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}


def test_a_model_has_its_temperature_only_where_the_request_says_nothing(ollama: FlaskClient) -> None:
    assert whole(ollama, RESPONSES, model="tiny", input="hello", max_output_tokens=1)["temperature"] == 1.0


def test_trap_84_events_have_a_name_and_a_number_and_no_end_mark(ollama: FlaskClient) -> None:
    told = events(ollama, model="tiny", input="hello", **GREEDY)

    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    kinds = [event["type"] for event in told]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 8,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_stream_ends_with_the_whole_response(ollama: FlaskClient) -> None:
    answer = whole(ollama, RESPONSES, model="tiny", input="hello", **GREEDY)
    told = events(ollama, model="tiny", input="hello", **GREEDY)

    text = answer["output"][0]["content"][0]["text"]
    assert "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta") == text
    assert next(event["text"] for event in told if event["type"] == "response.output_text.done") == text
    final = told[-1]["response"]
    assert final["output"][0]["content"] == answer["output"][0]["content"]
    assert final["usage"] == answer["usage"]
    assert final["id"] == told[0]["response"]["id"]
    assert (told[0]["response"]["status"], told[0]["response"]["output"]) == ("in_progress", [])
    assert {event["item_id"] for event in told if "item_id" in event} == {final["output"][0]["id"]}


def test_reasoning_is_an_item_before_the_message(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, "why", " not</think>so")
    thought = [{"type": "summary_text", "text": "why not"}]

    answer = whole(ollama, RESPONSES, model="thinker", input="q")
    told = events(ollama, model="thinker", input="q")

    reasoning, message = answer["output"]
    assert (reasoning["type"], reasoning["summary"], reasoning["encrypted_content"]) == (
        "reasoning",
        thought,
        "why not",
    )
    assert message["content"][0]["text"] == "so"
    assert [event["type"].removeprefix("response.") for event in told[2:]] == [
        "output_item.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "output_item.done", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["output_index"] for event in told if "output_index" in event] == [0] * 5 + [1] * 6
    assert [item["type"] for item in told[-1]["response"]["output"]] == ["reasoning", "message"]
    assert told[-1]["response"]["output"][0]["summary"] == thought


def test_a_call_is_an_item_with_its_arguments_as_text(ollama: FlaskClient) -> None:
    (call,) = whole(ollama, RESPONSES, **FORCED)["output"]

    assert re.fullmatch("call_[a-z0-9]{8}", call["call_id"])
    assert (call["type"], call["status"], call["name"]) == ("function_call", "completed", "weather")
    assert call["arguments"] == '{"days":2,"city":"Oslo"}'


def test_a_call_of_a_stream_comes_whole(ollama: FlaskClient) -> None:
    told = events(ollama, **FORCED)

    added, delta, done, ended = told[2:-1]
    assert [event["type"].removeprefix("response.") for event in (added, delta, done, ended)] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
    ]  # fmt: skip
    assert added["item"]["arguments"] == ""
    assert delta["delta"] == done["arguments"] == ended["item"]["arguments"] == '{"days":2,"city":"Oslo"}'
    assert delta["item_id"] == ended["item"]["id"]
    assert told[-1]["response"]["output"] == [ended["item"]]


@pytest.mark.parametrize("choice", [{"type": "function", "name": "weather"}, "required"])
def test_a_choice_names_a_function_and_is_repeated(ollama: FlaskClient, choice: object) -> None:
    answer = whole(ollama, RESPONSES, **FORCED | {"tool_choice": choice})

    assert answer["output"][0]["name"] == "weather"
    assert (answer["tool_choice"], answer["tools"]) == (choice, [FLAT])


def test_text_after_a_call_is_dropped(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    called = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    says(monkeypatch, called, " and more")
    asked = {"model": "go-chat", "input": "q", "tools": [FLAT], "reasoning": {"effort": "none"}}

    told = events(ollama, **asked)

    assert [item["type"] for item in told[-1]["response"]["output"]] == ["function_call"]
    assert [item["type"] for item in whole(ollama, RESPONSES, **asked)["output"]] == ["function_call"]


def test_an_answer_of_no_words_is_an_empty_message(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch)

    answer = whole(ollama, RESPONSES, model="tiny", input="q")
    told = events(ollama, model="tiny", input="q")

    assert [part["text"] for item in answer["output"] for part in item["content"]] == [""]
    assert [part["text"] for item in told[-1]["response"]["output"] for part in item["content"]] == [""]


def test_an_answer_is_held_to_the_format(ollama: FlaskClient) -> None:
    schema = {"type": "object", "properties": {"n": {"const": 1}}, "required": ["n"], "additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "one", "schema": schema}}

    answer = whole(ollama, RESPONSES, model="tiny", input="q", text=text, **WARM)

    assert json.loads(answer["output"][0]["content"][0]["text"]) == {"n": 1}
    assert answer["text"] == text


REFUSALS: list[tuple[JSON, int, str]] = [
    ({"model": ""}, 400, "model is required"),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"input": None}, 400, "input is required"),
    ({"input": []}, 400, "input is required"),
    ({"input": 5}, 400, 'field "input" must be of type array'),
    ({"input": [{"type": "odd"}]}, 400, 'input[0]: unknown input item type: "odd"'),
    ({"input": [{"role": "user", "content": "x"}, {}]}, 400, 'input[1]: unknown input item type: ""'),
    ({"input": [{"role": "user", "content": 1}]}, 400, "input[0]: content must be a string or an array of parts"),
    ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, 400, 'input[0]: unknown content type: "odd"'),
    ({"input": [{"role": "user", "content": ["x"]}]}, 400, 'input[0]: unknown content type: "None"'),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}]}, 400,
     "file inputs are not currently supported"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": image_uri()}]}]}, 400,
     '"tiny" does not support images'),
    ({"input": [{"type": "function_call", "name": "f", "arguments": {}}]}, 400, "invalid tool call arguments"),
    ({"previous_response_id": "resp_1"}, 400, f"previous_response_id {STATELESS}"),
    ({"conversation": {"id": "c"}}, 400, f"conversation {STATELESS}"),
    ({"text": {"format": {"type": "json_schema"}}}, 400, 'a format of type "json_schema" needs a "schema"'),
    ({"tools": [FLAT]}, 400, "registry.ollama.ai/library/tiny:latest does not support tools"),
    ({"tool_choice": {"type": "web_search"}}, 400,
     'tool_choice must be "auto", "none", "required", or name a function'),
    ({"metadata": "x"}, 400, 'field "metadata" must be of type object'),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_what_cannot_be_answered_is_refused(
    ollama: FlaskClient, body: JSON, status: int, message: str, stream: bool
) -> None:
    refused = post(ollama, RESPONSES, **{"model": "tiny", "input": "x", "stream": stream} | body)

    assert (refused.status_code, refused.json) == error(status, message)
