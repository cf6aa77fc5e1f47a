"""Refusals in the shape of the OpenAI API. Source: the Ollama API, "Error shapes"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from runtime.api.errors import status_of
from runtime.api.openai.replies import one_object
from runtime.api.replies import with_retry_after
from runtime.api.sse import frame

JSON = dict[str, Any]
_TYPES: Mapping[int, str] = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


def error_body(status: int, message: str) -> JSON:
    """What is said of an error, wherever it occurs."""
    return {"error": {"message": message, "type": _TYPES.get(status, "api_error"), "param": None, "code": None}}


def error_response(status: int, message: str) -> Response:
    return one_object(error_body(status, message), status)


def refusal(error: Exception) -> Response:
    """The status and the body of what the runtime or the store refuses."""
    return with_retry_after(error_response(status_of(error), str(error)), error)


def broken_off(error: Exception) -> bytes:
    """The last event of a stream that an error ends; clients raise what it says."""
    return frame(error_body(status_of(error), str(error)))
