"""A request as templates see it: root keys, messages and tool calls. Source: the Ollama API, "Template"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.templates.go.schema import text
from runtime.templates.go.values import Blob, List, Map, Prints, Struct, Type, from_json_floats

_BLANK_LINE = "\n\n"

_ARGUMENTS = Type("template.templateArgs", Prints.JSON, nil_text="{}")
_CALL_FUNCTION = Type("template.templateToolCallFunction")
_CALL = Type("template.templateToolCall")
_CALLS = Type("[]template.templateToolCall")
_IMAGES = Type("[]api.ImageData")
_MESSAGE = Type("*template.templateMessage")
_MESSAGES = Type("[]*template.templateMessage")


@dataclass(frozen=True, slots=True)
class Turn:
    """A message, its content as it goes on in messages of the same role behind it."""

    role: str
    content: str
    message: Mapping[str, Any]


def collate(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[Turn]]:
    """All system text, and the messages; neighbours of one role are one message, save for tools."""
    system: list[str] = []
    groups: list[tuple[str, list[str], Mapping[str, Any]]] = []
    for message in messages:
        role, content = text(message.get("role")).lower(), text(message.get("content"))
        if role == "system":
            system.append(content)
        if groups and groups[-1][0] == role != "tool":
            groups[-1][1].append(content)  # the rest of it is lost, as the reference has it
        else:
            groups.append((role, [content], message))
    turns = [Turn(role, _BLANK_LINE.join(contents), message) for role, contents, message in groups]
    return _BLANK_LINE.join(system), turns


def messages_value(turns: Sequence[Turn]) -> List:
    return List([_message(turn) for turn in turns], _MESSAGES)


def think_fields(think: bool | str | None) -> dict[str, object]:
    level = "medium" if think is True else think if isinstance(think, str) else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _message(turn: Turn) -> Struct:
    message = turn.message
    images, calls = message.get("images"), message.get("tool_calls")
    return Struct(
        _MESSAGE,
        {
            "Role": turn.role,
            "Content": turn.content,
            "Thinking": text(message.get("thinking")),
            "Images": List([Blob(each) for each in images or ()], _IMAGES, is_nil=images is None),
            "ToolCalls": List([_call(each) for each in calls or ()], _CALLS, is_nil=not calls),
            "ToolName": text(message.get("tool_name")),
            "ToolCallID": text(message.get("tool_call_id")),
        },
    )


def _call(call: Mapping[str, Any]) -> Struct:
    function = call.get("function") or {}
    index, arguments = function.get("index"), function.get("arguments")
    known = from_json_floats(arguments) if isinstance(arguments, Mapping) else None
    entries = known.entries if isinstance(known, Map) else {}
    described = {
        "Index": index if isinstance(index, int) and not isinstance(index, bool) else 0,
        "Name": text(function.get("name")),
        "Arguments": Map(entries, _ARGUMENTS, is_nil=not isinstance(arguments, Mapping)),
    }
    return Struct(_CALL, {"ID": text(call.get("id")), "Function": Struct(_CALL_FUNCTION, described)})
