"""The content of a message: text, or parts of which some are images. Source: the Ollama API, "Message conversion"."""

from __future__ import annotations

import re
from typing import Any, Final

from runtime.api.errors import Refused
from runtime.api.requests import Body, check_base64

JSON = dict[str, Any]
_REMOTE: Final = "image URLs are not currently supported, please use base64 encoded data instead"
_DATA: Final = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp))?;base64,")


def json_kind(value: object) -> str:
    """What JSON calls `value`, for people who sent it in the wrong place."""
    kinds: dict[type, str] = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "<nil>" if value is None else "number")


def image(url: object) -> str:
    """The base64 in a data URI. Raises Refused: nothing is fetched on behalf of a client."""
    text = url if isinstance(url, str) else ""
    if text[:8].lower().startswith(("http://", "https://")):
        raise Refused(400, _REMOTE)
    begun = _DATA.match(text)
    if begun is None:
        raise Refused(400, "invalid image input")
    data = text[begun.end() :]
    check_base64(data)
    return data


def part(given: object) -> JSON:
    """One part as `content` or `images` of a message. Raises Refused for what no model here can take."""
    fields = Body(given) if isinstance(given, dict) else Body({})
    kind = fields.raw("type")
    if kind == "text" and isinstance(fields.raw("text"), str):
        return {"content": fields.text("text")}
    if kind == "image_url":
        url = fields.raw("image_url")
        return {"images": [image(Body(url).raw("url") if isinstance(url, dict) else url)]}
    if kind == "input_audio":
        raise Refused(400, "audio input is not supported: no model of this server listens")
    raise Refused(400, "invalid message format")
