"""Compatibility traps of the Ollama API, by their numbers: what generated answers look like."""

from __future__ import annotations

import json
import re

import pytest

from tests.registry.ollama_api.world import JSON, TOOL, Api, user

STATISTICS = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
              "eval_duration")  # fmt: skip
LEGACY = ("numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "embedding_only", "tfs_z", "mirostat",
          "mirostat_tau", "mirostat_eta", "penalize_newline", "num_gqa", "rope_frequency_base", "rope_frequency_scale",
          "no_such_option")  # fmt: skip
THINK_LEVELS = 'must be "high", "medium", "low", "max", true, or false'
INFERENCE = ["/api/generate", "/api/chat"]


def ask(api: Api, path: str, **body: object) -> JSON:
    return api.whole(path, **{"model": "tiny", "prompt": "hello", "messages": user()} | body)


def text_of(answer: JSON) -> str:
    return str(answer["message"]["content"] if "message" in answer else answer["response"])


def thinking_of(answer: JSON) -> str:
    return str(answer.get("message", answer).get("thinking", ""))


@pytest.mark.parametrize("tools", [[], None])
def test_trap_19_no_tools_need_no_capability(api: Api, tools: object) -> None:
    assert ask(api, "/api/chat", tools=tools)["done"] is True


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_20_thinking_can_be_switched_off_where_there_is_none(api: Api, path: str) -> None:
    refused = api.post(path, model="tiny", prompt="x", messages=user(), think=True)

    assert text_of(ask(api, path, think=False))
    assert (refused.status, refused.json) == (400, {"error": '"tiny" does not support thinking'})


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_21_reasoning_is_on_by_default_and_never_in_the_content(api: Api, path: str) -> None:
    by_default, on, off = (
        ask(api, path, model="thinker", **think) for think in ({}, {"think": True}, {"think": False})
    )

    assert thinking_of(by_default) == thinking_of(on) != ""
    assert text_of(by_default) == text_of(on) == ""  # its prompt opens the block, and it never closes it
    assert thinking_of(off) == ""
    assert text_of(off) != ""


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_22_the_levels_of_thinking(api: Api, path: str) -> None:
    for level in ("low", "medium", "high", "max"):
        assert thinking_of(ask(api, path, model="thinker", think=level))
    refused = api.post(path, model="thinker", prompt="x", messages=user(), think="xhigh")

    assert (refused.status, refused.json) == (400, {"error": f'invalid think value: "xhigh" ({THINK_LEVELS})'})


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"num_ctx": "big"}, "integer"),
        ({"num_predict": True}, "integer"),
        ({"top_k": []}, "integer"),
        ({"temperature": "hot"}, "float32"),
        ({"top_p": {}}, "float32"),
        ({"use_mmap": 1}, "boolean"),
        ({"stop": "x"}, "array"),
    ],
)
@pytest.mark.parametrize("path", [*INFERENCE, "/api/embed"])
def test_trap_23_an_option_of_another_type_is_named(api: Api, path: str, options: JSON, kind: str) -> None:
    refused = api.post(path, model="tiny", prompt="x", messages=user(), input="x", options=options)

    (name,) = options
    assert (refused.status, refused.json) == (500, {"error": f'option "{name}" must be of type {kind}'})


def test_trap_24_options_of_other_times_are_ignored(api: Api) -> None:
    assert ask(api, "/api/generate", options=dict.fromkeys(LEGACY, 1))["eval_count"] == 8
    assert ask(api, "/api/chat", options={"mirostat": 1, "numa": False})["eval_count"] == 8


def test_trap_25_stop_texts_are_a_list(api: Api) -> None:
    said = text_of(ask(api, "/api/chat"))
    refused = api.post("/api/chat", model="tiny", messages=user(), options={"stop": said[1]})
    stopped = ask(api, "/api/chat", options={"stop": [said[1]]})

    assert (refused.status, refused.json) == (500, {"error": 'option "stop" must be of type array'})
    assert (text_of(stopped), stopped["done_reason"]) == (said.partition(said[1])[0], "stop")


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_26_a_fraction_is_cut_to_a_whole_number(api: Api, path: str) -> None:
    assert ask(api, path, options={"num_predict": 1.9})["eval_count"] == 1


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_27_figures_stand_in_the_last_chunk_and_are_never_zero(api: Api, path: str) -> None:
    *chunks, last = api.lines(path, model="tiny", prompt="hello", messages=user())
    loaded = api.whole(path, model="tiny")

    assert chunks
    for chunk in chunks:
        assert not {"done_reason", "context", *STATISTICS} & set(chunk)
    assert all(last[key] != 0 for key in STATISTICS if key in last)
    assert {"eval_count", "prompt_eval_count", "total_duration", "eval_duration"} <= set(last)
    assert last["done_reason"] == "length"
    assert not set(STATISTICS) & set(loaded)


@pytest.mark.parametrize("path", [*INFERENCE, "/api/embed"])
def test_trap_28_durations_are_whole_nanoseconds(api: Api, path: str) -> None:
    answer = ask(api, path, input="hello")

    durations = {key: value for key, value in answer.items() if key.endswith("_duration")}
    assert {"total_duration", "load_duration"} <= set(durations)
    assert all(type(value) is int and value > 1000 for value in durations.values())
    assert durations["total_duration"] > durations["load_duration"]


def called(api: Api, **more: object) -> JSON:
    """A call that the format leaves no choice about."""
    asked: JSON = {"tools": [TOOL], "tool_choice": "required", "options": {"num_predict": 200, "temperature": 0}}
    return api.whole("/api/chat", model="tooled", messages=user(), **asked | more)


def test_trap_36_arguments_are_an_object_in_the_order_they_were_made(api: Api) -> None:
    (call,) = called(api)["message"]["tool_calls"]

    assert list(call["function"]["arguments"].items()) == [("unit", "C"), ("city", "Rome")]


def test_trap_36_arguments_are_a_text_where_openai_has_one(api: Api) -> None:
    tools = [{"type": "function", **TOOL["function"]}]
    asked = {"input": "hello", "tools": tools, "tool_choice": "required", "temperature": 0, "max_output_tokens": 200}

    (item,) = api.post("/v1/responses", model="tooled", **asked).json["output"]

    assert isinstance(item["arguments"], str)
    assert list(json.loads(item["arguments"]).items()) == [("unit", "C"), ("city", "Rome")]


def test_trap_37_a_call_has_an_index_and_an_id(api: Api) -> None:
    (call,) = called(api)["message"]["tool_calls"]

    assert call["function"]["index"] == 0
    assert re.fullmatch("call_[a-z0-9]{8}", call["id"])


def test_trap_38_an_answer_that_calls_ends_with_stop(api: Api) -> None:
    answer = called(api)

    assert (answer["done_reason"], answer["message"]["content"]) == ("stop", "")


def test_trap_64_tokens_of_the_cache_are_counted(api: Api) -> None:
    first, again = (ask(api, "/api/generate", prompt="hello " * 40) for _ in range(2))

    assert first["prompt_eval_count"] > 40
    assert again["prompt_eval_count"] == first["prompt_eval_count"]
    assert again["response"] == first["response"]


@pytest.mark.parametrize("path", INFERENCE)
def test_trap_87_a_token_again_and_again_ends_with_done(api: Api, path: str) -> None:
    asked = {"model": "parrot", "prompt": "x", "messages": user(), "options": {"num_predict": 400}}
    *chunks, last = api.lines(path, **asked)

    said = "".join(map(text_of, chunks))
    assert len(said) >= 30
    assert set(said) == {said[0]}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert last["eval_count"] < 400


@pytest.mark.parametrize("also", [{"system": "s"}, {"template": "{{ .Prompt }}"}, {"context": [1]}])
def test_trap_88_a_raw_prompt_is_all_there_is(api: Api, also: JSON) -> None:
    refused = api.post("/api/generate", model="tiny", prompt="x", raw=True, **also)

    told = "raw mode does not support template, system, or context"
    assert (refused.status, refused.json) == (400, {"error": told})
    assert "context" not in ask(api, "/api/generate", raw=True)
    assert ask(api, "/api/generate")["context"]
