"""The JSON body of a request, read as leniently as the reference reads it.

Source: the Ollama API, "Request parsing": any content type, keys in any case, null is absent, unknown keys are ignored.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from flask import request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from runtime.api.errors import Refused
from runtime.dialogue import ToolChoice
from runtime.untrusted_json import parse_json

JSON = dict[str, Any]
THINK_LEVELS = ("high", "medium", "low", "max")
_ALLOWED = '"high", "medium", "low", "max", true, or false'
_MESSAGE_TEXTS = ("role", "content", "thinking", "tool_name", "tool_call_id")


class Body:
    """A JSON object with the typed reads that handlers need. Every one raises Refused for another type."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = {key.lower(): value for key, value in fields.items()}

    def raw(self, key: str) -> Any:
        return self._fields.get(key)

    def text(self, key: str) -> str:
        return str(self._typed(key, str, "string") or "")

    def flag(self, key: str, default: bool) -> bool:
        value = self._typed(key, bool, "boolean")
        return default if value is None else bool(value)

    def integer(self, key: str, default: int = 0) -> int:
        value = self._fields.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(400, f'field "{key}" must be of type integer')
        return value

    def mapping(self, key: str) -> JSON | None:
        value: JSON | None = self._typed(key, dict, "object")
        return value

    def objects(self, key: str) -> list[JSON]:
        return _objects(key, self._typed(key, list, "array") or [])

    def integers(self, key: str) -> list[int] | None:
        """None when absent, which for `context` differs from an empty list."""
        value = self._typed(key, list, "array")
        if value is None:
            return None
        if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31 for each in value):
            raise Refused(400, f'field "{key}" must be an array of token ids')
        return list(value)

    def texts(self, key: str) -> list[str]:
        value = self._typed(key, list, "array") or []
        if not all(isinstance(each, str) for each in value):
            raise Refused(400, f'field "{key}" must be an array of strings')
        return list(value)

    def tool_choice(self) -> ToolChoice:
        """As the OpenAI API has it; the Ollama API knows none, and its clients send none."""
        value = self._fields.get("tool_choice")
        if value is None:
            return ToolChoice()
        if isinstance(value, str) and value in ("auto", "none", "required"):
            return ToolChoice(value)
        function = value.get("function") if isinstance(value, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise Refused(400, 'tool_choice must be "auto", "none", "required", or name a function')
        return ToolChoice("required", name)

    def think(self) -> bool | str | None:
        """None: the client leaves it to the model."""
        value = self._fields.get("think")
        if value is None or isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise Refused(400, f"think must be a boolean or string ({_ALLOWED})")
        if value not in THINK_LEVELS:
            raise Refused(400, f'invalid think value: "{value[:100]}" (must be {_ALLOWED})')
        return value

    def top_logprobs(self) -> int | None:
        """How many alternatives a token; None for no log-probabilities. The range counts even when they are off."""
        top = self.integer("top_logprobs")
        if not 0 <= top <= 20:
            raise Refused(400, "top_logprobs must be between 0 and 20")
        return top if self.flag("logprobs", False) else None

    def messages(self) -> list[JSON]:
        return [_message(each) for each in self.objects("messages")]

    def _typed(self, key: str, kind: type, name: str) -> Any:
        value = self._fields.get(key)
        if value is not None and not isinstance(value, kind):
            raise Refused(400, f'field "{key}" must be of type {name}')
        return value


def read_body(limit: int) -> Body:
    """The request's body, of at most `limit` bytes. Raises Refused."""
    return parse_body(read_raw(limit), missing="missing request body")


def read_raw(limit: int) -> bytes:
    """The bytes of the request's body, at most `limit` of them. Raises Refused."""
    request.max_content_length = limit
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise Refused(413, f"the request body is larger than {limit} bytes") from None
    except (HTTPException, OSError):
        raise Refused(400, "the request body broke off") from None


def parse_body(raw: bytes, missing: str) -> Body:
    """The JSON object in `raw`. missing: the dialect's words for an empty body. Raises Refused."""
    text = raw.decode(errors="replace").lstrip()
    if not text:
        raise Refused(400, missing)
    try:
        value = parse_json(text)
    except ValueError:
        raise Refused(400, "the request body is not valid JSON") from None
    if value is None:
        return Body({})
    if not isinstance(value, dict):
        raise Refused(400, "the request body must be a JSON object")
    return Body(value)


def check_base64(text: str) -> None:
    """Raises Refused for what is not base64 with its padding; line breaks in it are allowed."""
    data = text.replace("\r", "").replace("\n", "")
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise Refused(400, "illegal base64 data in an image") from None
    if len(data) % 4:  # strict or not, Python reads past a padding that is too much
        raise Refused(400, "illegal base64 data in an image")


def _objects(key: str, values: list[Any]) -> list[JSON]:
    if not all(isinstance(value, dict) for value in values):
        raise Refused(400, f'field "{key}" must be an array of objects')
    return values


def _message(given: JSON) -> JSON:
    fields = Body(given)
    message: JSON = {key: fields.text(key) for key in _MESSAGE_TEXTS}
    message["tool_calls"] = [_tool_call(call) for call in fields.objects("tool_calls")]
    message["images"] = fields.texts("images")
    return message


def _tool_call(given: JSON) -> JSON:
    call = Body(given)
    function = Body(call.mapping("function") or {})
    described: JSON = {"index": function.integer("index"), "name": function.text("name")}
    described["arguments"] = function.mapping("arguments") or {}
    return {"id": call.text("id"), "function": described}
