"""Refusals as this dialect words them. Source: the Ollama API, "Error shapes"."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_hex
from typing import Any, Final

from flask import Response, g

from runtime.api.errors import status_of
from runtime.api.replies import encode, with_retry_after
from runtime.api.sse import frame

JSON = dict[str, Any]
TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_REQUEST_ID: Final = "anthropic_request_id"


def request_id() -> str:
    """The id of the request in hand as this dialect spells one; the same at each call."""
    if _REQUEST_ID not in g:
        setattr(g, _REQUEST_ID, f"req_{token_hex(12)}")
    return str(g.get(_REQUEST_ID))


def error_body(status: int, message: str, request: str) -> JSON:
    """What a client of this dialect is told of a refusal. request: its id."""
    told = {"type": TYPES.get(status, "api_error"), "message": message}
    return {"type": "error", "error": told, "request_id": request}


def error_response(status: int, message: str) -> Response:
    """A refusal before anything was answered; the server's own errors come through here, too."""
    return json_response(error_body(status, message, request_id()), status)


def refusal(error: Exception) -> Response:
    """A failure of the runtime or of the store, with when to ask again where that is known."""
    return with_retry_after(error_response(status_of(error), str(error)), error)


def error_frame(error: Exception, request: str) -> bytes:
    """The last event of a stream that an error ends."""
    return frame(error_body(status_of(error), str(error), request), "error")


def json_response(body: JSON, status: int = 200) -> Response:
    return Response(encode(body) + b"\n", status, content_type="application/json")
