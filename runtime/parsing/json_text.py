"""JSON that a model wrote: read whole or not at all, with the slips that models make put right."""

from __future__ import annotations

import json
import re
from typing import Any

from runtime.untrusted_json import parse_json

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\],]|[^"{}\[\],]+', re.DOTALL)
_CLOSES = {"{": "}", "[": "]"}
_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters")


def whole_json(text: str) -> Any:
    """The one JSON value that `text` is. Raises ValueError: also for what follows it, depth, and infinite numbers."""
    try:
        json.loads(text)  # parse_json stops at the end of the value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return parse_json(text)


def lenient_json(text: str) -> Any:
    """As `whole_json`; commas before a closing bracket and missing brackets at the end are put right."""
    try:
        return whole_json(text)
    except ValueError as error:
        mended = _mended(text)
        if mended == text:
            raise
        try:
            return whole_json(mended)
        except ValueError:
            raise error from None


def arguments_of(value: object) -> dict[str, Any]:
    """Arguments as an object, or as JSON text of one. Raises ValueError."""
    if isinstance(value, str):
        value = whole_json(value) if value.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("the arguments are no object")
    return value


def own_name(value: dict[str, Any]) -> str | None:
    """The name of the tool that an object says it calls."""
    return next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)


def own_arguments(value: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments beside the name, if the object has any."""
    for key in _ARGUMENT_KEYS:
        try:
            return arguments_of(value[key])
        except (KeyError, ValueError):
            continue
    return None


def _mended(text: str) -> str:
    """`text` without commas before closing brackets, and with the brackets that are missing at its end.

    An open string is left open: nobody knows what else it was going to say.
    """
    out: list[str] = []
    missing: list[str] = []
    comma = False
    for piece in _TOKEN.findall(text):
        if piece == ",":
            comma = True
            continue
        if comma and piece.strip() and piece not in "]}":
            out.append(",")
        comma = comma and not piece.strip()
        if piece in _CLOSES:
            missing.append(_CLOSES[piece])
        elif missing and piece == missing[-1]:
            missing.pop()
        out.append(piece)
    return "".join(out) + "".join(reversed(missing))
