"""A conversation as /v1/chat/completions tells it, in the words of /api/chat.

Source: the Ollama API, "POST /v1/chat/completions".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.api.errors import Refused
from runtime.api.openai.content import json_kind, part
from runtime.api.requests import Body
from runtime.untrusted_json import parse_json

JSON = dict[str, Any]


def native_messages(body: Body) -> list[JSON]:
    """`messages`; each part of one with several is a message of its own. Raises Refused."""
    given = body.objects("messages")
    if not given:
        raise Refused(400, "[] is too short - 'messages'")
    names: dict[str, str] = {}
    found: list[JSON] = []
    for message in map(Body, given):
        calls = _calls(message)
        names |= {call["id"]: call["function"]["name"] for call in calls}
        found += _native(message, calls, names)
    return found


def tool_call(call_id: str, function: Body, index: int) -> JSON:
    """A call whose arguments are JSON text. Raises Refused for any that are not."""
    text = function.raw("arguments")
    try:
        arguments = parse_json(text) if isinstance(text, str) else None
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise Refused(400, "invalid tool call arguments")
    return {"id": call_id, "function": {"index": index, "name": function.text("name"), "arguments": arguments}}


def _calls(message: Body) -> list[JSON]:
    given = [Body(call) for call in message.objects("tool_calls")]
    return [tool_call(call.text("id"), Body(call.mapping("function") or {}), index) for index, call in enumerate(given)]


def _native(message: Body, calls: list[JSON], names: dict[str, str]) -> Iterator[JSON]:
    """names: of the functions that were called so far, by the id of the call."""
    call_id = message.text("tool_call_id")
    named = {"tool_name": message.text("name") or names.get(call_id, ""), "tool_call_id": call_id}
    every = {"role": message.text("role")} | (named if message.text("role").lower() == "tool" else {})
    parts = _parts(message.raw("content"), bool(calls))
    for position, each in enumerate(parts):
        first = {"thinking": message.text("reasoning")} if position == 0 else {}
        last = {"tool_calls": calls} if calls and position == len(parts) - 1 else {}
        yield every | each | first | last


def _parts(content: object, has_calls: bool) -> list[JSON]:
    if isinstance(content, str):
        return [{"content": content}]
    if content == [] or (has_calls and content is None):
        return [{}]  # without any message the model would only be loaded
    if isinstance(content, list):
        return [part(each) for each in content]
    raise Refused(400, f"invalid message content type: {json_kind(content)}")
