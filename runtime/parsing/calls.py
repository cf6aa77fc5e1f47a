"""What an answer turned out to be: reasoning, content and tool calls. Source: the Ollama API, "Tool calls"."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_CALL_CHARS = 1024**2  # what is held while a call may still be read; beyond it the text is content
MAX_NAME_CHARS = 256

_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. index: counts from 0 in an answer; id: `call_` and eight random letters or digits."""

    name: str
    arguments: dict[str, Any]
    index: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a piece of text turned out to be. Where it holds both, content comes before the calls."""

    thinking: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()


class AnswerParser(Protocol):
    """Takes an answer piece by piece. What comes out does not depend on where the text is cut into pieces."""

    def feed(self, text: str) -> Parsed:
        """What `text` settles. Raises CallInvalid for an earlier call that the model's format forbids."""

    def finish(self) -> Parsed:
        """What was held when the answer ended. Raises CallInvalid."""


class Gathering:
    """Parts of one piece of text, collected in order."""

    def __init__(self) -> None:
        self._thinking: list[str] = []
        self._content: list[str] = []
        self._calls: list[ToolCall] = []

    def thinking(self, text: str) -> None:
        self._thinking.append(text)

    def content(self, text: str) -> None:
        self._content.append(text)

    def call(self, call: ToolCall) -> None:
        self._calls.append(call)

    def parsed(self) -> Parsed:
        return Parsed("".join(self._thinking), "".join(self._content), tuple(self._calls))


def new_call(name: str, arguments: dict[str, Any], index: int) -> ToolCall:
    """A call with an id that no other has."""
    return ToolCall(name, arguments, index, "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8)))


@dataclass(frozen=True, slots=True)
class Declared:
    """The tools of a request. schemas: name → its `parameters.properties`, as far as they are what they should be."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Iterable[object]) -> Declared:
        """tools: as /api/chat takes them. What has no usable name cannot be called."""
        schemas: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function = _object(tool).get("function")
            name = _object(function).get("name")
            if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS:
                schemas[name] = _object(_object(_object(function).get("parameters")).get("properties"))
        return cls(schemas)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.schemas)

    def schema(self, name: str, argument: str) -> Mapping[str, Any]:
        return _object(self.schemas.get(name, {}).get(argument))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
