"""Server-sent events: how the OpenAI and the Anthropic dialects frame what they stream."""

from __future__ import annotations

from typing import Any

from runtime.api.replies import encode

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def frame(data: dict[str, Any], event: str | None = None) -> bytes:
    """One event of one line of data: JSON keeps line breaks escaped. `event`: its type, a plain word."""
    name = f"event: {event}\n".encode() if event is not None else b""
    return name + b"data: " + encode(data) + b"\n\n"
