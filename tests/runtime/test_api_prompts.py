"""What models are told, seen from outside: the rendered prompt. Source: the Ollama API, "Prompt assembly"."""

from __future__ import annotations

import json
import re

import pytest
from flask.testing import FlaskClient

from runtime.settings import RuntimeSettings
from tests.ollama_app import GREEDY, JSON, TOOL, lines, post, prompt_of, user, whole

TALK = [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}]
CALL = {"function": {"name": "f", "arguments": {"b": 1, "a": "x"}}}
REASONED = {"role": "assistant", "thinking": "why", "content": "a"}
OLD = {"role": "assistant", "content": "<think>x</think>\n\na"}


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        ("go-chat", {"messages": TALK}, "[user]q1[assistant]a1[user]q2[assistant]medium"),
        ("go-chat", {"messages": TALK, "think": "high"}, "[user]q1[assistant]a1[user]q2[assistant]high"),
        ("go-chat", {"messages": TALK[-1:], "think": False}, "[user]q2[assistant]"),
        ("go-chat", {"messages": [{"role": "system", "content": "s"}, *user("q")]},
         "[S]s[system]s[user]q[assistant]medium"),
        ("go-chat", {"messages": [*user("a"), *user("b")]}, "[user]a\n\nb[assistant]medium"),
        ("go-chat", {"messages": [{"role": "USER", "content": "q"}]}, "[user]q[assistant]medium"),
        ("go-chat", {"messages": [*user("q"), {"role": "assistant", "tool_calls": [CALL]}]},
         '[user]q[assistant]f{"a":"x","b":1}[assistant]medium'),
        ("go-chat", {"messages": [*user("q"), REASONED, *user("r")]},
         "[user]q[assistant]<think>why</think>a[user]r[assistant]medium"),
        ("go-legacy", {"messages": [{"role": "system", "content": "s"}, *TALK]}, "S:s U:q1 A:a1 E U:q2 A:"),
        ("go-legacy", {"messages": TALK[:2]}, "U:q1 A:a1"),
        ("deepseek-r1", {"messages": [*user("q"), OLD, *user("r")]},
         "[user]q[assistant]a[user]r[assistant]medium"),
        ("plain", {"messages": user("q")}, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"),
        ("both", {"messages": user("q")}, "q"),
        ("go-tools", {"messages": user("q")}, "qnull"),
        ("surrogate", {"messages": user("q")}, "a?b"),
        ("begun", {"messages": [*user("q"), {"role": "assistant", "content": "e"}]}, "<e>q<e><e>e"),
        ("begun", {"messages": [*user("q"), {"role": "assistant", "content": "<e> "}]}, "<e>q<e><e><e> "),
    ],
)  # fmt: skip
def test_a_conversation_is_rendered_by_the_models_own_template(
    ollama: FlaskClient, model: str, asked: JSON, expected: str
) -> None:
    assert prompt_of(ollama, "/api/chat", model=model, **asked) == expected


def test_tools_come_as_the_template_prints_them(ollama: FlaskClient) -> None:
    tools = (
        '[{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object","properties":{}}}}]'
    )

    assert prompt_of(ollama, "/api/chat", model="go-chat", messages=user("q"), tools=[TOOL], think=False) == (
        f"[T]{tools}[user]q[assistant]"
    )
    assert "[T]" not in prompt_of(
        ollama, "/api/chat", model="go-chat", messages=user("q"), tools=[TOOL], tool_choice="none"
    )


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        ("go-chat", {"prompt": "q", "system": "s"}, "[S]s[system]s[user]q[assistant]medium"),
        ("go-chat", {"prompt": "q", "raw": True}, "q"),
        ("go-chat", {"prompt": "q", "template": "T {{ .System }}|{{ .Prompt }}", "system": "s"}, "T s|q"),
        ("go-chat", {"prompt": "q", "template": "{{ range .Messages }}{{ .Role }}{{ end }}"}, "user"),
        ("go-gap", {"prompt": "def f(", "suffix": "return 1"}, "<pre>def f(<suf>return 1<mid>"),
        ("go-gap", {"prompt": "q"}, "q"),
        ("go-tools", {"prompt": "q"}, "q[]"),
        ("go-legacy", {"prompt": "q"}, "U:q A:"),
        ("ns/alias:v1", {"prompt": "q", "template": "{{ .System }}|{{ .Prompt }}|"},
         "|STORED\n\nq|"),
        ("plain", {"prompt": "q"}, "q"),
    ],
)  # fmt: skip
def test_a_prompt_is_rendered_raw_or_by_a_template(ollama: FlaskClient, model: str, asked: JSON, expected: str) -> None:
    if model == "ns/alias:v1":
        expected = "You are S." + expected
    assert prompt_of(ollama, "/api/generate", model=model, **asked) == expected


def test_an_operator_may_switch_go_templates_off(ollama: FlaskClient) -> None:
    extensions = ollama.application.extensions
    usual = extensions["tonnage.runtime"]
    try:
        extensions["tonnage.runtime"] = RuntimeSettings(go_templates=False)
        off = prompt_of(ollama, "/api/chat", model="go-chat", messages=user("q"))
        extensions["tonnage.runtime"] = RuntimeSettings(go_templates=True)
        on = prompt_of(ollama, "/api/chat", model="both", messages=user("q"))
    finally:
        extensions["tonnage.runtime"] = usual

    assert off.startswith("<|im_start|>")  # of the weights
    assert on == "<q>"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("go-broken", "template error: line 2: "),
        ("go-endless", "template error: line 1: the template loops more than 1000000 times"),
        ("stranger", 'unknown renderer "x"'),
    ],
)
def test_a_template_that_cannot_be_used_is_a_clean_error(
    ollama: FlaskClient, path: str, model: str, message: str
) -> None:
    refused = post(ollama, path, model=model, messages=user("q"), prompt="q", options=GREEDY)

    assert refused.status_code == 500
    assert refused.json["error"].startswith(message)
    assert whole(ollama, path, model="tiny", messages=user("q"), prompt="q")["done"]


def test_images_are_numbered_over_the_kept_messages(ollama: FlaskClient) -> None:
    messages = [
        {"role": "user", "content": "see [img] and", "images": ["AAAA", "AAAA"]},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "this", "images": ["AAAA"]},
    ]
    asked = {"messages": messages, "think": False, "truncate": False, "_debug_render_only": True}
    shown = post(ollama, "/api/chat", model="seeing", **asked).json

    assert shown["_debug_info"] == {
        "rendered_template": "[user][img-1]see [img-0] and[assistant]ok[user][img-2]this[assistant]",
        "image_count": 3,
    }


def test_images_count_against_the_context(ollama: FlaskClient) -> None:
    """Three of them count for more than a window of 2,048 tokens holds."""
    messages = [{"role": "user", "content": "a", "images": ["AAAA", "AAAA"]}, *TALK[1:]]
    messages[-1] = messages[-1] | {"images": ["AAAA"]}
    asked = {"messages": messages, "options": {"num_ctx": 2048}, "_debug_render_only": True}
    shown = post(ollama, "/api/chat", model="seeing", **asked).json

    assert shown["_debug_info"]["image_count"] == 1


def test_what_was_left_out_is_said(ollama: FlaskClient) -> None:
    many = [*user("x " * 400), {"role": "assistant", "content": "y"}, *user("hello")]

    streamed = post(ollama, "/api/chat", model="tiny", messages=many, options=GREEDY)
    assert streamed.headers["Tonnage-Truncated"] == "true"
    *pieces, end = (json.loads(line) for line in streamed.text.splitlines())
    assert end["truncated"] is True
    assert not any("truncated" in piece for piece in pieces)

    cut = post(ollama, "/api/generate", model="tiny", prompt="x " * 1000, raw=True, stream=False, options=GREEDY)
    assert cut.headers["Tonnage-Truncated"] == "true"
    assert cut.json["truncated"] is True

    fits = post(ollama, "/api/chat", model="tiny", messages=user(), stream=False, options=GREEDY)
    assert "Tonnage-Truncated" not in fits.headers
    assert "truncated" not in fits.json


def test_a_window_that_moved_on_has_lost_something(ollama: FlaskClient) -> None:
    answer = whole(
        ollama, "/api/generate", model="tiny", prompt="x " * 20, raw=True, options={"num_ctx": 64, "num_predict": 60,
        "temperature": 1.5, "seed": 3},
    )  # fmt: skip

    assert answer["eval_count"] == 60
    assert answer["truncated"] is True


def test_what_must_not_be_cut_is_refused_with_the_counts(ollama: FlaskClient) -> None:
    refused = post(ollama, "/api/chat", model="tiny", messages=user("x " * 1000), truncate=False, options=GREEDY)

    assert refused.status_code == 400
    assert "tokens of 512" in refused.json["error"]


SHIP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "masts": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["name", "masts"],
    "additionalProperties": False,
}
WARM = {"temperature": 1, "num_predict": 200, "num_ctx": 512, "seed": 7}


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_an_answer_is_held_to_its_schema(ollama: FlaskClient, path: str) -> None:
    answer = whole(ollama, path, model="tiny", messages=user(), prompt="q", format=SHIP, options=WARM)
    said = json.loads(answer["message"]["content"] if "message" in answer else answer["response"])

    assert answer["done_reason"] == "stop"
    assert set(said) == {"name", "masts"}
    assert 1 <= said["masts"] <= 5


def test_reasoning_comes_before_the_schema(ollama: FlaskClient) -> None:
    """The prompt opens the block; random weights never close it, so what they say is reasoning to the end."""
    answer = whole(ollama, "/api/chat", model="thinker", messages=user(), format=SHIP, options=WARM)
    calm = whole(ollama, "/api/chat", model="thinker", messages=user(), format=SHIP, options=WARM, think=False)

    assert answer["message"]["thinking"]
    assert answer["done_reason"] == "length"
    assert set(json.loads(calm["message"]["content"])) == {"name", "masts"}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called_is_called(ollama: FlaskClient, choice: object) -> None:
    asked = {"model": "tooled", "messages": user(), "tools": [WEATHER], "tool_choice": choice, "options": WARM}
    answer = whole(ollama, "/api/chat", **asked)
    streamed = lines(ollama, "/api/chat", **asked)

    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["index"] == 0
    assert call["function"]["name"] == "weather"
    assert call["function"]["arguments"]["city"] in ("Rome", "Oslo")
    assert call["id"].startswith("call_")
    assert answer["message"]["content"] == ""
    (told,) = [line for line in streamed if "tool_calls" in line["message"]]
    assert told["done"] is False
    assert told["message"]["tool_calls"][0]["function"] == call["function"]
    assert streamed[-1]["done_reason"] == "stop"


def test_more_tools_than_one_schema_holds_can_still_be_forced(ollama: FlaskClient) -> None:
    dated = {"type": "object", "properties": {f"d{n}": {"type": "string", "format": "date"} for n in range(6)}}
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": dated}} for n in range(20)]

    for choice, names in (({"function": {"name": "f7"}}, "f7"), ("required", r"f\d+")):
        asked = {"model": "tooled", "messages": user(), "tools": tools, "tool_choice": choice}
        said = whole(ollama, "/api/chat", **asked, options=WARM)["message"]
        called = [call["function"]["name"] for call in said.get("tool_calls", ())]

        # an answer that was cut short comes as the text that it is
        assert re.match(rf'{names}$|\s*\{{\s*"name"\s*:\s*"{names}"', called[0] if called else said["content"])


@pytest.mark.parametrize("choice", ["sometimes", {"type": "function"}, {"function": {"name": "nobody"}}, 1])
def test_a_choice_of_no_tool_is_refused(ollama: FlaskClient, choice: object) -> None:
    refused = post(ollama, "/api/chat", model="tooled", messages=user(), tools=[WEATHER], tool_choice=choice)

    assert refused.status_code == 400
    assert refused.json["error"].startswith("tool_choice ")


def test_a_call_that_a_template_model_writes_is_read(ollama: FlaskClient) -> None:
    """Its tag is a brace; the format leaves nothing but a call to be said."""
    called = {"name": "weather", "parameters": {"city": "Rome"}}
    asked = {"model": "go-chat", "messages": user(), "tools": [WEATHER], "format": {"const": called}, "think": False}
    for seed in range(3):
        *pieces, end = lines(ollama, "/api/chat", **asked, options=WARM | {"seed": seed})
        calls = [call for piece in pieces for call in piece["message"].get("tool_calls", [])]
        if end["done_reason"] == "stop":
            assert [call["function"]["name"] for call in calls] == ["weather"]
            assert all(not piece["message"]["content"].strip("} ") for piece in pieces)
            return
    pytest.fail("no answer came to its end")
