"""JSON from outside, as values that every later step can carry: no NaN, nothing infinite, no half characters, no depth
without end.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 128
_LONE_SURROGATE = re.compile(r"\\[uU][dD][89a-fA-F]")  # an escape that may be half a pair


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is too large")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def parse_json(text: str) -> Any:
    """The first JSON value of `text`; what follows it is ignored, as the reference does. Raises ValueError."""
    try:
        value, _ = _DECODER.raw_decode(text.lstrip())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    return _whole(value) if _LONE_SURROGATE.search(text) else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _whole(value: Any) -> Any:
    """Half a surrogate pair is no character: U+FFFD stands in its place, as the reference's decoder has it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value
