"""Models as tables on a terminal, in the words and columns that `ollama` users know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from registry.remotes.text import one_line

_GAP = "    "
_FOREVER_S = 20 * 365 * 86400


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns as wide as their widest cell."""
    printable = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in printable) for column in range(len(head))]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in printable)
    return "\n".join(line.rstrip() for line in lines)


def stored_models(models: Sequence[dict[str, Any]], now: datetime) -> str:
    """`list`: what `/api/tags` answers."""
    rows = [
        (_text(m, "name"), _text(m, "digest")[:12], size_text(m.get("size")), ago_text(m.get("modified_at"), now))
        for m in models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED"), rows)


def running_models(models: Sequence[dict[str, Any]], now: datetime) -> str:
    """`ps`: what `/api/ps` answers."""
    rows = [
        (
            _text(m, "name"),
            _text(m, "digest")[:12],
            size_text(m.get("size")),
            processor_text(m.get("size"), m.get("size_vram")),
            str(m.get("context_length", "")),
            until_text(m.get("expires_at"), now),
        )
        for m in models
    ]
    return table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), rows)


def fetching_text(weights: dict[str, Any]) -> str:
    """`ps`: weights on their way, `fetching library/llama3: 45% of 4.9 GB`."""
    total, completed = weights.get("total"), weights.get("completed")
    share = ""
    if isinstance(total, int) and isinstance(completed, int) and 0 <= completed <= total and total > 0:
        share = f"{completed * 100 // total}% of "
    return f"fetching {one_line(_text(weights, 'repository'))}: {share}{size_text(total)}"


def size_text(size: object) -> str:
    """Bytes in decimal units, two digits at most: `2.0 GB`, `397 MB`."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return "-"
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            value = size / unit
            return f"{value:.1f} {name}" if value < 10 else f"{int(value)} {name}"
    return f"{size} B"


def processor_text(size: object, on_gpu: object) -> str:
    """How the model is spread: `100% CPU`, `100% GPU` or `30%/70% CPU/GPU`."""
    if not isinstance(size, int) or not isinstance(on_gpu, int) or size <= 0 or on_gpu <= 0:
        return "100% CPU"
    if on_gpu >= size:
        return "100% GPU"
    cpu = round((size - on_gpu) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def ago_text(when: object, now: datetime) -> str:
    """`3 days ago`; "" for what is no time."""
    then = _time(when)
    return "" if then is None else f"{span_text((now - then).total_seconds())} ago"


def until_text(when: object, now: datetime) -> str:
    """`4 minutes from now`, `Forever`, or `Stopping...` when the time has passed."""
    then = _time(when)
    if then is None:
        return ""
    left = (then - now).total_seconds()
    if left > _FOREVER_S:
        return "Forever"
    return f"{span_text(left)} from now" if left > 0 else "Stopping..."


def span_text(seconds: float) -> str:
    """A length of time in its largest sensible unit."""
    seconds = max(seconds, 0)
    if seconds < 1:
        return "Less than a second"
    steps = ((60, 1, "second"), (3600, 60, "minute"), (48 * 3600, 3600, "hour"), (14 * 86400, 86400, "day"),
             (60 * 86400, 7 * 86400, "week"), (730 * 86400, 30 * 86400, "month"))  # fmt: skip
    for below, unit, name in steps:
        if seconds < below:
            count = int(seconds // unit)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{int(seconds // (365 * 86400))} years"


def _time(value: object) -> datetime | None:
    """An RFC 3339 time; more than six digits of a second are cut off, which is all that Python keeps."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _text(model: dict[str, Any], key: str) -> str:
    value = model.get(key)
    return value if isinstance(value, str) else ""
