"""A request of this dialect in the words of /api/chat. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runtime.api.anthropic.content import conversation
from runtime.api.anthropic.tools import tool_choice, tools
from runtime.api.errors import Refused
from runtime.api.requests import Body
from runtime.api.serving import NOT_FOUND, Call

JSON = dict[str, Any]
_OPTIONS: Final[Mapping[str, str]] = {"temperature": "number", "top_p": "number", "top_k": "integer"}
_EFFORTS: Final[Mapping[str, str]] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}


def message_call(body: Body, started_ns: int) -> Call:
    """What POST /v1/messages asks for. Raises Refused, AccessDenied."""
    _check_model(body)
    max_tokens = body.integer("max_tokens")
    if max_tokens <= 0:
        raise Refused(400, "max_tokens is required and must be positive")
    return _call(_fields(body) | {"options": _options(body) | {"num_predict": max_tokens}}, started_ns)


def count_call(body: Body, started_ns: int) -> Call:
    """What POST /v1/messages/count_tokens asks for: the whole prompt, and no answer. Raises Refused, AccessDenied."""
    _check_model(body)
    return _call(_fields(body), started_ns)


def _call(fields: JSON, started_ns: int) -> Call:
    """Reasoning that the model cannot do is not asked for: on this face that is no error."""
    call = Call.of(Body(fields), started_ns)
    if fields["think"] and "thinking" not in call.find_model(NOT_FOUND).capabilities:
        return Call.of(Body(fields | {"think": None}), started_ns)
    return call


def _fields(body: Body) -> JSON:
    """What both routes have in common, in the order in which it is looked at."""
    return {
        "model": body.text("model"),
        "messages": conversation(body),
        "tools": tools(body),
        "tool_choice": tool_choice(body),
        "think": _think(body),
        "format": _format(body),
    }


def _check_model(body: Body) -> None:
    if not body.text("model").strip():
        raise Refused(400, "model is required")


def _options(body: Body) -> JSON:
    """What the request says of drawing tokens; the model's own options stand where it says nothing."""
    options = {key: value for key in _OPTIONS if (value := body.raw(key)) is not None}
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int if _OPTIONS[key] == "integer" else int | float):
            raise Refused(400, f'field "{key}" must be of type {_OPTIONS[key]}')
    stops = body.texts("stop_sequences")
    return options | ({"stop": stops} if stops else {})


def _think(body: Body) -> bool | str | None:
    kind = Body(body.mapping("thinking") or {}).text("type")
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    return _EFFORTS.get(_output_config(body).text("effort"))


def _format(body: Body) -> object:
    """The JSON Schema that the answer is held to, if any."""
    wanted = Body(_output_config(body).mapping("format") or {})
    return wanted.mapping("schema") if wanted.text("type") == "json_schema" else None


def _output_config(body: Body) -> Body:
    return Body(body.mapping("output_config") or {})
