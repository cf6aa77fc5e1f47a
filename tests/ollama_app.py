"""Requests to the Ollama dialect, for tests that have an app of it."""

from __future__ import annotations

import json
from typing import Any

from flask.testing import FlaskClient

JSON = dict[str, Any]
GREEDY = {"temperature": 0, "num_predict": 8, "num_ctx": 512}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def post(client: FlaskClient, path: str, **body: Any) -> Any:
    return client.post(path, data=json.dumps(body), content_type="application/x-www-form-urlencoded")


def whole(client: FlaskClient, path: str, **body: Any) -> JSON:
    answer = post(client, path, **{"stream": False, "options": GREEDY} | body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json; charset=utf-8"
    found: JSON = answer.json
    return found


def lines(client: FlaskClient, path: str, **body: Any) -> list[JSON]:
    answer = post(client, path, **{"options": GREEDY} | body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.removesuffix("\n").split("\n")]


def user(content: str = "hello") -> list[JSON]:
    return [{"role": "user", "content": content}]


def prompt_of(client: FlaskClient, path: str, **body: Any) -> str:
    shown = post(client, path, _debug_render_only=True, **body).json
    return str(shown["_debug_info"]["rendered_template"])
