"""Requests to the OpenAI dialect, for tests that have an app of it."""

from __future__ import annotations

import base64
import json
from typing import Any

from flask.testing import FlaskClient

from tests.tiny_projector import image_bytes

JSON = dict[str, Any]
GREEDY: JSON = {"max_tokens": 8, "temperature": 0}
WARM: JSON = {"max_tokens": 400, "temperature": 0.8, "seed": 3}  # greedy, a model of noise writes blanks for ever
PARAMETERS: JSON = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 2, "maximum": 2}, "city": {"enum": ["Oslo"]}},
    "required": ["days", "city"],
    "additionalProperties": False,
}
WEATHER: JSON = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def user(content: object = "hello") -> list[JSON]:
    return [{"role": "user", "content": content}]


def image_uri(colour: tuple[int, int, int] = (255, 0, 0)) -> str:
    """A picture of one colour."""
    return "data:image/png;base64," + base64.b64encode(image_bytes(colour)).decode()


def post(client: FlaskClient, path: str, **body: Any) -> Any:
    return client.post(path, data=json.dumps(body))


def whole(client: FlaskClient, path: str = CHAT, **body: Any) -> JSON:
    answer = post(client, path, **body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    assert answer.text.endswith("}\n")
    found: JSON = answer.json
    return found


def chunks(client: FlaskClient, path: str = CHAT, **body: Any) -> list[JSON]:
    """The chunks of a stream that comes to its end."""
    answer = post(client, path, **body, stream=True)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/event-stream"
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def error(status: int, message: str) -> tuple[int, JSON]:
    """What a refusal looks like."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}
