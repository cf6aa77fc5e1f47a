"""Items as a conversation. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from runtime.api.openai.responses_input import native_messages
from runtime.api.openai.responses_tools import native_tools
from runtime.api.requests import Body
from tests.openai_app import RESPONSES, image_uri, whole

JSON = dict[str, Any]
RED = image_uri()
THOUGHT: JSON = {"type": "reasoning", "summary": [], "encrypted_content": "why"}
FUNCTION: JSON = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}


def called(call_id: str = "c1", name: str = "f", arguments: str = '{"b":1,"a":2}') -> JSON:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def answered(output: object, call_id: str = "c1") -> JSON:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def native_call(call_id: str = "c1", name: str = "f", index: int = 0) -> JSON:
    return {"id": call_id, "function": {"index": index, "name": name, "arguments": {"b": 1, "a": 2}}}


USER: JSON = {"role": "user", "content": "q"}
TOOL: JSON = {"role": "tool", "tool_call_id": "c1", "tool_name": "f"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"input": "q"}, [USER]),
        ({"input": "q", "instructions": "be"}, [{"role": "system", "content": "be"}, USER]),
        ({"input": [USER, {"type": "message", "role": "developer", "content": "d"}]},
         [USER, {"role": "developer", "content": "d"}]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"},
                                                 {"type": "input_image", "image_url": RED},
                                                 {"type": "input_image", "file_id": "f"},
                                                 {"type": "output_text", "text": "b"}]}]},
         [{"role": "user", "content": "ab", "images": [RED.partition(",")[2]]}]),
        ({"input": [USER, called(), called("c2", "g"), answered("sun"), answered("rain", "c2")]},
         [USER, {"role": "assistant", "tool_calls": [native_call(), native_call("c2", "g", 1)]},
          TOOL | {"content": "sun"}, {"role": "tool", "content": "rain", "tool_call_id": "c2", "tool_name": "g"}]),
        ({"input": [called(), answered([{"type": "input_text", "text": "sun"}])]},
         [{"role": "assistant", "tool_calls": [native_call()]}, TOOL | {"content": "sun", "images": []}]),
        ({"input": [USER, {"role": "assistant", "content": "wait"}, called()]},
         [USER, {"role": "assistant", "content": "wait", "tool_calls": [native_call()]}]),
        ({"input": [USER, THOUGHT, {"role": "assistant", "content": "a"}]},
         [USER, {"role": "assistant", "content": "a", "thinking": "why"}]),
        ({"input": [USER, THOUGHT, called(), THOUGHT, called("c2")]},
         [USER, {"role": "assistant", "thinking": "why", "tool_calls": [native_call()]},
          {"role": "assistant", "thinking": "why", "tool_calls": [native_call("c2")]}]),
        ({"input": [THOUGHT, USER, {"role": "assistant", "content": "a"}]},
         [USER, {"role": "assistant", "content": "a"}]),
        ({"input": [USER, {"type": "web_search_call", "id": "w"}]}, [USER]),
    ],
)  # fmt: skip
def test_items_become_messages(asked: JSON, expected: list[JSON]) -> None:
    assert native_messages(Body(asked)) == expected


def test_a_response_can_be_sent_back_as_it_came(ollama: FlaskClient) -> None:
    first = whole(ollama, RESPONSES, model="go-chat", input="q", max_output_tokens=4, temperature=0)

    again = [USER, *first["output"], {"role": "user", "content": "r"}]
    second = whole(ollama, RESPONSES, model="go-chat", input=again, max_output_tokens=4, temperature=0)

    assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([FUNCTION | {"strict": True}], [("f", "d", {"type": "object"})]),
        ([{"type": "function", "name": "f"}], [("f", None, None)]),
        ([{"type": "namespace", "name": "ns", "tools": [FUNCTION, FUNCTION | {"name": "g"}]}],
         [("ns.f", "d", {"type": "object"}), ("ns.g", "d", {"type": "object"})]),
        ([{"type": "namespace", "name": "a", "tools": [{"type": "namespace", "name": "b", "tools": [FUNCTION]}]}], []),
        ([{"type": "web_search"}, {"type": "file_search"}], []),
    ],
)  # fmt: skip
def test_flat_tools_become_nested(tools: list[JSON], expected: list[tuple[str, object, object]]) -> None:
    functions = [tool["function"] for tool in native_tools(Body({"tools": tools}))]

    assert [(each["name"], each.get("description"), each.get("parameters")) for each in functions] == expected
