"""What the requests of this dialect have in common: sampling, reasoning, and what there is one of.

Source: the Ollama API, "Common /v1 rules" and "POST /v1/chat/completions".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from runtime.api.errors import Refused
from runtime.api.requests import Body
from runtime.api.serving import settings
from runtime.api.v1_body import read_v1_body

JSON = dict[str, Any]
_EFFORTS: Final[Mapping[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}
_ALLOWED: Final = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'


def read_request() -> tuple[Body, int]:
    """The request's body, and when it began to arrive, for `Call.of`. Raises Refused."""
    started_ns = time.monotonic_ns()
    return read_v1_body(settings().max_body_bytes), started_ns


def number(body: Body, key: str, default: float | None = None) -> float | None:
    """Raises Refused for what is no number."""
    value = body.raw(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(400, f'field "{key}" must be of type number')
    return value


def whole_number(body: Body, *keys: str) -> int | None:
    """The first of `keys` that is there. Raises Refused for what is no integer."""
    return next((body.integer(key) for key in keys if body.raw(key) is not None), None)


def sampling(body: Body, *limits: str) -> JSON:
    """The `options` of a request. limits: the fields that bound the answer's tokens, the one that wins first.

    Temperature is 1 where nothing else is said, whatever the model's own value.
    """
    options: JSON = {
        "num_predict": whole_number(body, *limits),
        "temperature": number(body, "temperature", 1.0),
        "seed": whole_number(body, "seed"),
        "frequency_penalty": number(body, "frequency_penalty"),
        "presence_penalty": number(body, "presence_penalty"),
    }
    return {key: value for key, value in options.items() if value is not None}


def check_single(body: Body) -> None:
    """Raises Refused where more than one answer is asked for: a client would wait for the others in vain."""
    if body.integer("n", 1) > 1:
        raise Refused(400, f"n must be 1: this server gives one answer a request, and not {body.integer('n')}")


def think(body: Body) -> bool | str | None:
    """`think` of the Ollama dialect; None leaves it to the model. Raises Refused."""
    effort = Body(body.mapping("reasoning") or {}).text("effort") or body.text("reasoning_effort")
    if not effort:
        return None
    if effort not in _EFFORTS:
        raise Refused(400, f'invalid reasoning value: "{effort[:100]}" (must be {_ALLOWED})')
    return _EFFORTS[effort]


def wants_usage(body: Body) -> bool:
    """Whether a stream is to end with the figures."""
    return Body(body.mapping("stream_options") or {}).flag("include_usage", False)


def response_format(wanted: JSON | None, described: JSON | None) -> object:
    """`format` of the Ollama dialect. described: where the schema stands if one is wanted. Raises Refused."""
    kind = Body(wanted or {}).text("type")
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        return None
    schema = Body(described or {}).mapping("schema")
    if schema is None:
        raise Refused(400, 'a format of type "json_schema" needs a "schema"')
    return schema
