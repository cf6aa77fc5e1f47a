"""A conversation of this dialect as messages of /api/chat.

A message of /api/chat says one thing: results of tools are messages of their own. Blocks of other kinds than these are
ignored. Source: the Ollama API, "POST /v1/messages".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime.api.errors import Refused
from runtime.api.requests import Body

JSON = dict[str, Any]


def conversation(body: Body) -> list[JSON]:
    """The `system` and `messages` of a request. Raises Refused."""
    given = body.objects("messages")
    if not given:
        raise Refused(400, "messages is required")
    system = "".join(block.text("text") for block in _blocks("system", body.raw("system")) if _is_text(block))
    reader = _Reader([{"role": "system", "content": system}] if system else [])
    for each in given:
        reader.read(Body(each))
    return reader.messages


@dataclass
class _Turn:
    """What one side said, as far as it has been read."""

    role: str
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    calls: list[JSON] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.texts or self.thoughts or self.images or self.calls)

    def message(self) -> JSON:
        said = {"role": self.role, "content": "".join(self.texts), "thinking": "".join(self.thoughts)}
        return said | {"images": self.images, "tool_calls": self.calls}


class _Reader:
    """Takes messages in order. It remembers what was called by which id: templates name a result by its tool."""

    def __init__(self, messages: list[JSON]) -> None:
        self.messages = messages
        self._names: dict[str, str] = {}

    def read(self, given: Body) -> None:
        before = len(self.messages)
        turn = _Turn(given.text("role"))
        for block in _blocks("content", given.raw("content")):
            turn = self._take(block, turn)
        if not turn.is_empty or len(self.messages) == before:
            self.messages.append(turn.message())

    def _take(self, block: Body, turn: _Turn) -> _Turn:
        """Add `block` to `turn`, or to the messages before it. Returns the turn that goes on."""
        match block.text("type"):
            case "text":
                turn.texts.append(block.text("text"))
            case "thinking":
                turn.thoughts.append(block.text("thinking"))
            case "image":
                turn.images.append(_image(block))
            case "tool_use" | "server_tool_use" as kind:
                turn.calls.append(self._call(kind, block, len(turn.calls)))
            case "tool_result":
                self._add_result(block, *_output(block.raw("content")))
            case "web_search_tool_result":
                if turn.calls:  # what was called stands before what came of it
                    self.messages.append(turn.message())
                    turn = _Turn(turn.role)
                self._add_result(block, _found(block.raw("content")), [])
        return turn

    def _call(self, kind: str, block: Body, index: int) -> JSON:
        call_id, name = block.text("id"), block.text("name")
        if not call_id or not name:
            raise Refused(400, f'a block of type {kind} lacks its "{"name" if call_id else "id"}"')
        self._names[call_id] = name
        arguments = block.mapping("input") or {}
        return {"id": call_id, "function": {"index": index, "name": name, "arguments": arguments}}

    def _add_result(self, block: Body, text: str, images: list[str]) -> None:
        call_id = block.text("tool_use_id")
        answered = {"tool_call_id": call_id, "tool_name": self._names.get(call_id, "")}
        self.messages.append({"role": "tool", "content": text, "images": images} | answered)


def _blocks(key: str, content: object) -> list[Body]:
    """A text counts as one block. Raises Refused for what is neither that nor a list of blocks."""
    if content is None:
        return []
    if isinstance(content, str):
        return [Body({"type": "text", "text": content})]
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise Refused(400, f'field "{key}" must be a string or an array of blocks')
    return [Body(each) for each in content]


def _is_text(block: Body) -> bool:
    return block.text("type") == "text"


def _image(block: Body) -> str:
    """The base64 of an image, not looked into yet. Raises Refused."""
    source = Body(block.mapping("source") or {})
    kind = source.text("type")
    if kind != "base64":
        raise Refused(400, f"invalid image source type: {kind[:100]}. Only base64 images are supported.")
    return source.text("data")


def _output(content: object) -> tuple[str, list[str]]:
    """Text and images of what a tool gave back."""
    blocks = _blocks("content", content)
    texts = [block.text("text") for block in blocks if _is_text(block)]
    return "".join(texts), [_image(block) for block in blocks if block.text("type") == "image"]


def _found(content: object) -> str:
    """What a search found, a line a page; a search that failed says why."""
    if isinstance(content, dict):
        return f"the search failed: {Body(content).text('error_code')}"
    return "\n".join(f"{page.text('title')}: {page.text('url')}" for page in _blocks("content", content))
