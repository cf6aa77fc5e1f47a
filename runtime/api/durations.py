"""Durations and times as the Ollama dialect writes them.

Source: the Ollama API, "Durations, keep-alive, timestamps, numbers".
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime

from runtime.api.errors import Refused

FOREVER_S = -1.0
_MAX_S = (2**63 - 1) / 1e9  # Go's longest duration, some 292 years
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)


def parse_keep_alive(value: object) -> float | None:
    """Seconds; FOREVER_S for anything negative; None when absent. Raises Refused."""
    if value is None:
        return None
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        kind = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}.get(type(value), "unknown")
        raise Refused(400, f"Unsupported type: '{kind}'")
    else:
        is_nan = isinstance(value, float) and math.isnan(value)  # it takes no integers of hundreds of digits
        seconds = 0.0 if is_nan else float(max(min(value, _MAX_S), -1))
    return FOREVER_S if seconds < 0 else min(seconds, _MAX_S)


def parse_duration(text: str) -> float:
    """A Go duration (`1h30m`, `-0.5s`, `0`) in seconds. Raises Refused."""
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0.0
    total, end = 0.0, 0
    while end < len(rest) and len(rest) <= 200:
        part = _PART.match(rest, end)
        if part is None:
            break
        if not part[2]:
            raise Refused(400, f'time: missing unit in duration "{text}"')
        if part[2] not in _UNITS_S:
            raise Refused(400, f'time: unknown unit "{part[2]}" in duration "{text}"')
        total, end = total + float(part[1]) * _UNITS_S[part[2]], part.end()
    if not rest or end < len(rest) or total > _MAX_S * (1 + 1e-9):
        raise Refused(400, f'time: invalid duration "{text[:200]}"')
    return sign * total


def utc_now() -> str:
    """Now, in UTC, to the nanosecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    whole = datetime.fromtimestamp(seconds, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def local_time(seconds: float) -> str:
    """A Unix time with the server's offset; far ahead stays some 292 years from now."""
    furthest = time.time() + _MAX_S
    seconds = min(seconds, furthest) if not math.isnan(seconds) else furthest
    return datetime.fromtimestamp(seconds).astimezone().isoformat()
