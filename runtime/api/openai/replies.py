"""What every answer of the OpenAI dialect is made of. Source: the Ollama API, "Common /v1 rules"."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Final

from flask import Response

from runtime.api.replies import encode
from runtime.messages import Done
from runtime.parsing.calls import ToolCall

JSON = dict[str, Any]
CONTENT_TYPE: Final = "application/json"
FINGERPRINT: Final = "fp_ollama"


def one_object(body: JSON, status: int = 200) -> Response:
    """An object, and the line break that this dialect puts after it."""
    return Response(encode(body) + b"\n", status, content_type=CONTENT_TYPE)


def new_id(prefix: str) -> str:
    """`prefix` and a number that no other answer has."""
    return f"{prefix}{secrets.randbelow(10**15)}"


def head(id_prefix: str, kind: str, model: str) -> JSON:
    """The keys that an answer, and each chunk of one, begins with: one id and one time for all of them."""
    return {
        "id": new_id(id_prefix),
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def usage(done: Done | None) -> JSON:
    """The tokens of an answer; none where the model was only loaded."""
    prompt, completion = (done.prompt_tokens, done.tokens) if done is not None else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def arguments_text(call: ToolCall) -> str:
    """The arguments as JSON text, their keys in the order in which the model wrote them."""
    return json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))
