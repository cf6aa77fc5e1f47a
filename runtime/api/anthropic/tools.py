"""Tools of this dialect as /api/chat takes them. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runtime.api.errors import Refused
from runtime.api.requests import Body

JSON = dict[str, Any]
_OF_THE_SERVER: Final[Mapping[str, str]] = {"web_search": "web search", "web_fetch": "web fetch"}
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "any": "required", "none": "none"}


def tools(body: Body) -> list[JSON]:
    """The tools that the client runs. Raises Refused, also for those that this server would have to run."""
    return [_tool(Body(each)) for each in body.objects("tools")]


def tool_choice(body: Body) -> object:
    """`tool_choice` in the words of /api/chat; None leaves it to the model. Raises Refused."""
    given = body.mapping("tool_choice")
    if given is None:
        return None
    choice = Body(given)
    kind, name = choice.text("type"), choice.text("name")
    if kind == "tool" and name:
        return {"type": "function", "function": {"name": name}}
    if kind not in _CHOICES:
        raise Refused(400, 'tool_choice must be of type "auto", "any", "none", or "tool" with a name')
    return _CHOICES[kind]


def _tool(given: Body) -> JSON:
    kind, name = given.text("type"), given.text("name")
    for prefix, what in _OF_THE_SERVER.items():
        if kind.startswith(prefix):
            raise Refused(403, f"ollama cloud is disabled: {what} is unavailable")
    if not name:
        raise Refused(400, 'a tool needs a "name"')
    parameters = given.mapping("input_schema") or {"type": "object", "properties": {}}
    described = {"name": name, "description": given.text("description"), "parameters": parameters}
    return {"type": "function", "function": described}
