"""What a conversation of the Anthropic dialect becomes for the model. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.api.anthropic.content import conversation
from runtime.api.anthropic.tools import tool_choice, tools
from runtime.api.errors import Refused
from runtime.api.requests import Body
from tests.anthropic_app import JSON, WEATHER, said

TEXT = {"type": "text", "text": "Look."}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
USE = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}
SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "ships"}}
PAGES = [{"type": "web_search_result", "title": title, "url": f"https://{title}"} for title in ("a", "b")]
CALL = {"id": "t1", "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}}


def native(*messages: JSON, **fields: Any) -> list[JSON]:
    """Without what is empty."""
    found = conversation(Body({"messages": list(messages), **fields}))
    return [{key: value for key, value in message.items() if value or key == "content"} for message in found]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello", [{"content": "hello"}]),
        (None, [{"content": ""}]),
        ([], [{"content": ""}]),
        ([TEXT, {"type": "text", "text": " Well?"}], [{"content": "Look. Well?"}]),
        ([TEXT | {"cache_control": {"type": "ephemeral"}}], [{"content": "Look."}]),
        ([IMAGE, TEXT], [{"content": "Look.", "images": ["QUJD"]}]),
        ([{"type": "redacted_thinking", "data": "x"}, TEXT, {"type": "document"}], [{"content": "Look."}]),
    ],
)
def test_blocks_of_a_message_are_put_together(content: object, expected: list[JSON]) -> None:
    assert native(said(content)) == [{"role": "user", **each} for each in expected]


def test_reasoning_and_calls_of_earlier_answers_are_kept() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}

    (message,) = native(said([thought, TEXT, USE], "assistant"))

    assert message == {"role": "assistant", "content": "Look.", "thinking": "Hm.", "tool_calls": [CALL]}


def test_results_of_tools_come_before_the_text_of_their_message_and_bear_the_tools_name() -> None:
    _, result, text = native(said([USE], "assistant"), said([TEXT, RESULT]))

    assert result == {"role": "tool", "content": "sunny", "tool_call_id": "t1", "tool_name": "get_weather"}
    assert text == {"role": "user", "content": "Look."}


def test_a_message_that_only_holds_results_leaves_no_empty_one_behind() -> None:
    assert [each["role"] for each in native(said([USE], "assistant"), said([RESULT, RESULT]))] == [
        "assistant", "tool", "tool",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, {"content": ""}),
        ([TEXT, TEXT], {"content": "Look.Look."}),
        ([TEXT, IMAGE], {"content": "Look.", "images": ["QUJD"]}),
        ([{"type": "search_result"}], {"content": ""}),
    ],
)
def test_a_result_is_text_and_images(content: object, expected: JSON) -> None:
    (result,) = native(said([RESULT | {"content": content}]))

    assert result == {"role": "tool", "tool_call_id": "t1"} | expected


def test_what_a_search_found_stands_between_the_call_and_the_answer() -> None:
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": PAGES}

    call, result, answer = native(said([SEARCH, found, TEXT], "assistant"))

    assert call["tool_calls"][0]["function"]["name"] == "web_search"
    assert (result["role"], result["tool_name"], result["content"]) == (
        "tool",
        "web_search",
        "a: https://a\nb: https://b",
    )
    assert answer == {"role": "assistant", "content": "Look."}


def test_a_search_that_failed_says_why() -> None:
    failed = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}

    *_, result = native(
        said([SEARCH, {"type": "web_search_tool_result", "tool_use_id": "s1", "content": failed}], "assistant")
    )

    assert "max_uses_exceeded" in result["content"]


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]])
def test_the_system_text_comes_first(system: object) -> None:
    assert native(said("x"), system=system)[0] == {"role": "system", "content": "be brief"}


@pytest.mark.parametrize("system", [None, "", []])
def test_no_system_text_is_no_message(system: object) -> None:
    assert [each["role"] for each in native(said("x"), system=system)] == ["user"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "image", "source": {"type": "url", "url": "http://h/x.png"}}],
         "invalid image source type: url. Only base64 images are supported."),
        ([RESULT | {"content": [{"type": "image", "source": {"type": "file"}}]}],
         "invalid image source type: file. Only base64 images are supported."),
        ([USE | {"id": ""}], 'a block of type tool_use lacks its "id"'),
        ([USE | {"name": None}], 'a block of type tool_use lacks its "name"'),
        ([USE | {"input": "x"}], 'field "input" must be of type object'),
        (["hello"], 'field "content" must be a string or an array of blocks'),
        (7, 'field "content" must be a string or an array of blocks'),
        ([{"type": "text", "text": ["x"]}], 'field "text" must be of type string'),
    ],
)  # fmt: skip
def test_blocks_that_cannot_be_read_are_refused(content: object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        native(said(content))

    assert (refused.value.status, str(refused.value)) == (400, message)


def test_a_tool_is_a_function() -> None:
    (tool,) = tools(Body({"tools": [WEATHER | {"type": "custom", "cache_control": {"type": "ephemeral"}}]}))

    assert tool["type"] == "function"
    assert tool["function"] == {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": WEATHER["input_schema"],
    }


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("web_search_20250305", "ollama cloud is disabled: web search is unavailable"),
        ("web_fetch_20250910", "ollama cloud is disabled: web fetch is unavailable"),
    ],
)
def test_tools_that_a_server_runs_are_refused(kind: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        tools(Body({"tools": [{"type": kind, "name": "web"}]}))

    assert (refused.value.status, str(refused.value)) == (403, message)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"type": "auto"}, "auto"),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_a_choice_of_tools_is_that_of_the_native_route(given: object, expected: object) -> None:
    assert tool_choice(Body({"tool_choice": given})) == expected
