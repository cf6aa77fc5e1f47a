"""POST /v1/chat/completions. Source: the Ollama API, "POST /v1/chat/completions" and "Compatibility traps"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from runtime.messages import Done, GenerateRequest, Piece
from runtime.supervisor.lease import Lease
from tests.openai_app import CHAT, COMPLETIONS, GREEDY, JSON, RESPONSES, WARM, WEATHER, chunks, user, whole

KEYS = ["id", "object", "created", "model", "system_fingerprint", "choices"]
FORCED = {"model": "tooled", "messages": user(), "tools": [WEATHER], "tool_choice": "required"} | WARM


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[GenerateRequest]:
    """What the runner was asked."""
    requests: list[GenerateRequest] = []
    generate = Lease.generate

    def kept(lease: Lease, request: GenerateRequest, **others: object) -> Iterator[Piece | Done]:
        requests.append(request)
        return generate(lease, request, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(Lease, "generate", kept)
    return requests


def test_an_answer_is_one_choice_with_its_figures(ollama: FlaskClient) -> None:
    answer = whole(ollama, model="TINY", messages=user(), **GREEDY)

    assert list(answer) == [*KEYS, "usage"]
    assert re.fullmatch(r"chatcmpl-\d+", answer["id"])
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "TINY"
    assert answer["system_fingerprint"] == "fp_ollama"
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "finish_reason"]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert list(choice["message"]) == ["role", "content"]
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


def test_a_stream_says_what_the_whole_answer_says(ollama: FlaskClient) -> None:
    answer = whole(ollama, model="tiny", messages=user(), **GREEDY)
    streamed = chunks(ollama, model="tiny", messages=user(), **GREEDY)

    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed)
    assert text == answer["choices"][0]["message"]["content"]
    assert all(list(chunk) == KEYS and chunk["object"] == "chat.completion.chunk" for chunk in streamed)
    assert [chunk["choices"][0]["finish_reason"] for chunk in streamed] == [None] * 8 + ["length"]


def test_trap_36_arguments_are_text_with_the_keys_in_their_order(ollama: FlaskClient) -> None:
    (call,) = whole(ollama, **FORCED)["choices"][0]["message"]["tool_calls"]

    assert call["function"]["name"] == "weather"
    assert call["function"]["arguments"] == '{"days":2,"city":"Oslo"}'


def test_trap_37_a_call_has_an_index_and_an_id(ollama: FlaskClient) -> None:
    (call,) = whole(ollama, **FORCED)["choices"][0]["message"]["tool_calls"]
    told = [delta for chunk in chunks(ollama, **FORCED) for delta in chunk["choices"][0]["delta"].get("tool_calls", [])]

    assert list(call) == ["id", "index", "type", "function"]
    assert re.fullmatch("call_[a-z0-9]{8}", call["id"])
    assert (call["index"], call["type"]) == (0, "function")
    assert [each["function"] for each in told] == [call["function"]]


def test_trap_38_an_answer_of_calls_ends_with_tool_calls(ollama: FlaskClient) -> None:
    assert whole(ollama, **FORCED)["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks(ollama, **FORCED)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_trap_39_content_beside_calls_is_empty_and_not_null(ollama: FlaskClient) -> None:
    assert whole(ollama, **FORCED)["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("path", "body", "top_p"),
    [
        (CHAT, {"messages": user()}, 1.0),
        (COMPLETIONS, {"prompt": "x"}, 1.0),
        (RESPONSES, {"input": "x"}, 0.9),
    ],
)
def test_trap_40_temperature_and_top_p_are_one_whatever_the_model_says(
    ollama: FlaskClient, asked: list[GenerateRequest], path: str, body: JSON, top_p: float
) -> None:
    whole(ollama, path, model="tiny", **body)
    whole(ollama, path, model="tiny", **body, temperature=None, top_p=None)
    whole(ollama, path, model="tiny", **body, temperature=0.5, top_p=0.25)

    given = [(request.options.temperature, request.options.top_p) for request in asked]
    assert given == [(1.0, top_p), (1.0, top_p), (0.5, 0.25)]


def test_trap_41_the_figures_come_in_one_more_chunk(ollama: FlaskClient) -> None:
    wanted = {"stream_options": {"include_usage": True}}
    *others, last = chunks(ollama, model="tiny", messages=user(), **GREEDY, **wanted)

    assert not any("usage" in chunk for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert not any("usage" in chunk for chunk in chunks(ollama, model="tiny", messages=user(), **GREEDY))


@pytest.mark.parametrize("body", [{"model": "tiny", "messages": user(), **GREEDY}, FORCED])
def test_trap_42_role_only_in_the_first_delta(ollama: FlaskClient, body: JSON) -> None:
    first, *middle, last = [chunk["choices"][0]["delta"] for chunk in chunks(ollama, **body)]

    assert first["role"] == "assistant"
    assert isinstance(first["content"], str)
    assert all(delta and "role" not in delta for delta in middle)
    assert last == {}


def test_trap_42_an_answer_of_no_words_has_its_role_all_the_same(
    ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "generate", lambda *_, **__: iter([Done("stop", 5, 1, 0, 0)]))

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ollama, model="tiny", messages=user())]

    assert deltas == [{"role": "assistant", "content": ""}, {}]


def test_trap_43_one_id_and_one_time_for_a_whole_stream(ollama: FlaskClient) -> None:
    one, other = (chunks(ollama, model="tiny", messages=user(), **GREEDY) for _ in range(2))

    assert len({(chunk["id"], chunk["created"]) for chunk in one}) == 1
    assert one[0]["id"] != other[0]["id"]


def test_trap_25_stop_is_one_text_or_several(ollama: FlaskClient) -> None:
    free = whole(ollama, model="tiny", messages=user(), **GREEDY)["choices"][0]["message"]["content"]

    for stop in (free[3], [free[3]], ["never", free[3], 7]):
        choice = whole(ollama, model="tiny", messages=user(), **GREEDY, stop=stop)["choices"][0]
        assert choice["message"]["content"] == free[: free.index(free[3])]
        assert choice["finish_reason"] == "stop"


def test_reasoning_stands_beside_the_content(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [Piece("why"), Piece("</think>so"), Done("stop", 5, 1, 2, 1)]
    monkeypatch.setattr(Lease, "generate", lambda *_, **__: iter(pieces))

    answer = whole(ollama, model="thinker", messages=user())
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ollama, model="thinker", messages=user())]

    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "so", "reasoning": "why"}
    assert deltas == [{"role": "assistant", "content": "", "reasoning": "why"}, {"content": "so"}, {}]


def test_a_piece_of_reasoning_and_content_is_two_chunks(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "generate", lambda *_, **__: iter([Piece("a</think>b"), Done("stop", 5, 1, 2, 1)]))

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ollama, model="thinker", messages=user())]

    assert deltas == [{"role": "assistant", "content": "", "reasoning": "a"}, {"content": "b"}, {}]


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 2}, 2),
        ({"max_completion_tokens": 2, "max_tokens": 5}, 2),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({}, 4),  # as the model says
    ],
)
def test_the_limit_of_tokens(ollama: FlaskClient, limits: JSON, tokens: int) -> None:
    answer = whole(ollama, model="tiny", messages=user(), temperature=0, **limits)

    assert answer["usage"]["completion_tokens"] == tokens


def test_what_is_asked_of_the_sampler_reaches_it(ollama: FlaskClient, asked: list[GenerateRequest]) -> None:
    whole(ollama, model="tiny", messages=user(), seed=7, frequency_penalty=0.5, presence_penalty=-1, max_tokens=1)

    (options,) = [request.options for request in asked]
    assert (options.seed, options.frequency_penalty, options.presence_penalty) == (7, 0.5, -1.0)


def test_fields_that_mean_nothing_here_are_ignored(ollama: FlaskClient) -> None:
    unknown = {
        "user": "u", "logit_bias": {"1": 5}, "parallel_tool_calls": False, "store": True, "metadata": {"a": "b"},
        "service_tier": "auto", "n": 1, "num_ctx": 1, "options": "none", "keep_alive": "0s", "tool_choice": "auto",
    }  # fmt: skip

    answer = whole(ollama, model="tiny", messages=user(), **GREEDY, **unknown)

    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("top", [None, 2])
def test_logprobs_stand_in_the_choice_with_their_alternatives(ollama: FlaskClient, top: int | None) -> None:
    asked = {"model": "tiny", "messages": user(), "logprobs": True, "top_logprobs": top} | GREEDY
    (choice,) = whole(ollama, **asked)["choices"]
    streamed = [chunk["choices"][0] for chunk in chunks(ollama, **asked)]

    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    for entry in entries:
        assert list(entry) == ["token", "logprob", "bytes", "top_logprobs"]
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == (top or 0)
        assert all(list(each) == ["token", "logprob", "bytes"] for each in entry["top_logprobs"])
    told = [entry for each in streamed if "logprobs" in each for entry in each["logprobs"]["content"]]
    assert [entry["token"] for entry in told] == [entry["token"] for entry in entries]


def test_an_answer_is_held_to_the_format(ollama: FlaskClient) -> None:
    schema = {"type": "object", "properties": {"n": {"const": 1}}, "required": ["n"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "one", "strict": True, "schema": schema}}

    held = whole(ollama, model="tiny", messages=user(), response_format=wanted, **WARM)["choices"][0]
    free = whole(ollama, model="tiny", messages=user(), response_format={"type": "json_object"}, **WARM)["choices"][0]

    assert json.loads(held["message"]["content"]) == {"n": 1}
    assert free["message"]["content"].lstrip().startswith("{")


def test_a_tool_can_be_named_and_all_can_be_withheld(ollama: FlaskClient, asked: list[GenerateRequest]) -> None:
    named = {"type": "function", "function": {"name": "weather"}}

    (call,) = whole(ollama, **FORCED | {"tool_choice": named})["choices"][0]["message"]["tool_calls"]
    whole(ollama, **FORCED | {"tool_choice": "none", "max_tokens": 1})

    assert call["function"]["name"] == "weather"
    assert ["weather" in request.prompt for request in asked] == [True, False]


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        ("none", "[assistant]"),
        ("minimal", "[assistant]low"),
        ("low", "[assistant]low"),
        ("medium", "[assistant]medium"),
        ("high", "[assistant]high"),
        ("xhigh", "[assistant]max"),
        ("ultra", "[assistant]max"),
        ("max", "[assistant]max"),
        ("", "[assistant]medium"),
    ],
)
def test_trap_22_efforts_have_their_levels(ollama: FlaskClient, effort: str, think: str) -> None:
    asked = {"model": "go-chat", "messages": user(), "_debug_render_only": True}
    flat = whole(ollama, **asked, reasoning_effort=effort)
    nested = whole(ollama, **asked, reasoning={"effort": effort}, reasoning_effort=None)

    assert flat["_debug_info"]["rendered_template"] == f"[user]hello{think}"
    assert nested["_debug_info"] == flat["_debug_info"]


def test_the_effort_of_the_object_goes_before_the_other(ollama: FlaskClient) -> None:
    asked = {"model": "go-chat", "messages": user(), "_debug_render_only": True}
    shown = whole(ollama, **asked, reasoning={"effort": "high"}, reasoning_effort="low")

    assert shown["_debug_info"]["rendered_template"] == "[user]hello[assistant]high"
