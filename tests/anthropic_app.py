"""Requests to the Anthropic dialect, for tests that have an app of it."""

from __future__ import annotations

import base64
import json
from typing import Any

from flask.testing import FlaskClient

from tests.tiny_projector import image_bytes

JSON = dict[str, Any]
GREEDY: JSON = {"max_tokens": 8, "temperature": 0}
WEATHER: JSON = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris"]}, "days": {"type": "integer", "minimum": 2, "maximum": 2}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


def said(content: object, role: str = "user") -> JSON:
    return {"role": role, "content": content}


def image(colour: tuple[int, int, int] = (255, 0, 0)) -> JSON:
    """A block with a picture of one colour."""
    data = base64.b64encode(image_bytes(colour)).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def post(client: FlaskClient, path: str = "/v1/messages", **body: Any) -> Any:
    return client.post(path, data=json.dumps(body))


def whole(client: FlaskClient, **body: Any) -> JSON:
    answer = post(client, **GREEDY | {"messages": [said("hello")]} | body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    found: JSON = answer.json
    return found


def events(client: FlaskClient, **body: Any) -> list[JSON]:
    """The data of each event, whose name is always its type."""
    answer = post(client, **GREEDY | {"messages": [said("hello")], "stream": True} | body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type.startswith("text/event-stream")
    return parsed(answer.text)


def parsed(text: str) -> list[JSON]:
    found = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def put_together(stream: list[JSON]) -> JSON:
    """The whole message that the events tell of, as clients gather it; checks their order on the way."""
    start, *between, delta, stop = stream
    assert (start["type"], delta["type"], stop["type"]) == ("message_start", "message_delta", "message_stop")
    message: JSON = start["message"]
    assert message["content"] == []
    is_open = False
    for event in between:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(message["content"])
                is_open = True
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(message["content"]) - 1
                _add(message["content"][-1], event["delta"])
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(message["content"]) - 1
                is_open = False
            case unknown:
                raise AssertionError(unknown)
    assert not is_open
    return message | delta["delta"] | {"usage": delta["usage"]}


def _add(block: JSON, delta: JSON) -> None:
    match delta["type"]:
        case "input_json_delta":
            block["input"] = json.loads(delta["partial_json"])
        case "text_delta" | "thinking_delta":
            kind = delta["type"].removesuffix("_delta")
            assert block["type"] == kind
            block[kind] += delta[kind]
        case unknown:
            raise AssertionError(unknown)
