"""The tools of /v1/responses, which are flat there. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.api.requests import Body

JSON = dict[str, Any]
_FUNCTION = ("name", "description", "parameters")


def native_tools(body: Body) -> list[JSON]:
    """The functions as /api/chat takes them. Tools that the provider would run are not there to be called."""
    return [tool for given in body.objects("tools") for tool in _functions(Body(given), "")]


def native_choice(body: Body) -> object:
    """`tool_choice` as /v1/chat/completions has it: a function is named inside an object of its own there."""
    given = body.raw("tool_choice")
    if isinstance(given, dict) and given.get("type") == "function" and "function" not in given:
        return {"type": "function", "function": {"name": given.get("name")}}
    return given


def _functions(tool: Body, prefix: str) -> Iterator[JSON]:
    """A function, or those of a namespace, whose names begin with its own."""
    match tool.raw("type"):
        case "function":
            described = {key: tool.raw(key) for key in _FUNCTION if tool.raw(key) is not None}
            yield {"type": "function", "function": described | {"name": prefix + tool.text("name")}}
        case "namespace" if not prefix:
            for given in tool.objects("tools"):
                yield from _functions(Body(given), f"{tool.text('name')}.")
