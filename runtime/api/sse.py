"""Server-sent events: how the OpenAI and the Anthropic dialects frame what they stream."""

from __future__ import annotations

import json
from typing import Any

CONTENT_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def frame(data: dict[str, Any], event: str | None = None) -> bytes:
    """One event of one line of data: JSON keeps line breaks escaped. `event`: its type, a plain word."""
    name = f"event: {event}\n" if event is not None else ""
    return f"{name}data: {_encode(data)}\n\n".encode("utf-8", "replace")  # JSON may hold lone surrogates, UTF-8 may not
