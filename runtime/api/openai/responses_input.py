"""The `input` of /v1/responses as a conversation of /api/chat. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.api.errors import Refused
from runtime.api.openai.content import image
from runtime.api.openai.messages import tool_call
from runtime.api.requests import Body

JSON = dict[str, Any]
_TEXTS = ("input_text", "output_text", "text")


def native_messages(body: Body) -> list[JSON]:
    """The conversation, `instructions` first. Raises Refused."""
    given = body.raw("input")
    conversation = _Conversation(body.text("instructions"))
    if isinstance(given, str):
        conversation.messages.append({"role": "user", "content": given})
    elif given is not None:
        for position, item in enumerate(body.objects("input")):
            conversation.add(Body(item), f"input[{position}]")
    return conversation.messages


class _Conversation:
    """Messages so far. Reasoning waits for the message that it led to; calls that follow each other are one message."""

    def __init__(self, instructions: str) -> None:
        self.messages: list[JSON] = [{"role": "system", "content": instructions}] if instructions else []
        self._thinking = ""
        self._names: dict[str, str] = {}

    def add(self, item: Body, where: str) -> None:
        """where: the item's place, for refusals. Raises Refused."""
        kind = item.text("type") or ("message" if item.text("role") else "")
        match kind:
            case "message":
                self._say(item, where)
            case "function_call":
                self._call(item)
            case "function_call_output":
                self._answer(item, where)
            case "reasoning":
                self._thinking = item.text("encrypted_content")
            case "web_search_call":
                pass  # the search was another server's; its results are in the answer that followed
            case _:
                raise Refused(400, f'{where}: unknown input item type: "{kind[:100]}"')

    def _say(self, item: Body, where: str) -> None:
        role = item.text("role")
        self.messages.append({"role": role, **_content(item.raw("content"), where), **self._thought(role)})

    def _call(self, item: Body) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or self._thinking:
            last = {"role": "assistant", **self._thought("assistant")}
            self.messages.append(last)
        calls: list[JSON] = last.setdefault("tool_calls", [])
        call = tool_call(item.text("call_id"), item, len(calls))
        self._names[call["id"]] = call["function"]["name"]
        calls.append(call)

    def _answer(self, item: Body, where: str) -> None:
        call_id = item.text("call_id")
        told = _content(item.raw("output"), where)
        named = {"tool_call_id": call_id, "tool_name": self._names.get(call_id, "")}
        self.messages.append({"role": "tool", **told, **named})

    def _thought(self, role: str) -> JSON:
        """What was thought before a message of `role`; of others than the assistant nothing is known."""
        thinking, self._thinking = self._thinking, ""
        return {"thinking": thinking} if thinking and role == "assistant" else {}


def _content(given: object, where: str) -> JSON:
    """Text or parts, as `content` and `images` of one message. Raises Refused."""
    if given is None or isinstance(given, str):
        return {"content": given or ""}
    if not isinstance(given, list):
        raise Refused(400, f"{where}: content must be a string or an array of parts")
    return _joined(given, where)


def _joined(parts: Sequence[object], where: str) -> JSON:
    texts: list[str] = []
    images: list[str] = []
    for part in parts:
        fields = Body(part) if isinstance(part, dict) else Body({})
        kind = fields.raw("type")
        if kind in _TEXTS:
            texts.append(fields.text("text"))
        elif kind == "refusal":
            texts.append(fields.text("refusal"))
        elif kind == "input_image" and (fields.raw("image_url") or not fields.raw("file_id")):
            images.append(image(fields.raw("image_url")))
        elif kind == "input_file":
            raise Refused(400, "file inputs are not currently supported")
        elif kind != "input_image":
            raise Refused(400, f'{where}: unknown content type: "{str(kind)[:100]}"')
    return {"content": "".join(texts), "images": images}
