"""The steps that a server tells of while it creates or pulls a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from registry.remotes.progress import Bar, Progress
from registry.remotes.text import one_line

_MOST_BARS: Final = 10_000  # as many layers as a manifest may have


def follow(steps: Iterable[dict[str, Any]], progress: Progress) -> None:
    """Show them to their end: a bar for each status that names a digest, a line for each that does not."""
    bars: dict[tuple[str, str], Bar] = {}  # some steps of different kinds share a digest of zeros
    last = ""
    try:
        for step in steps:
            status, digest, total = (step.get(key) for key in ("status", "digest", "total"))
            label = one_line(status) if isinstance(status, str) else ""
            if isinstance(digest, str) and isinstance(total, int) and len(bars) < _MOST_BARS:
                key = (label, digest)
                if key not in bars:
                    bars[key] = progress.bar(label, total)
                bars[key].move(_position(step.get("completed"), total))
            elif label and label != last:
                progress.say(label)
            last = label
    finally:
        for bar in bars.values():
            bar.close()


def _position(completed: object, total: int) -> int:
    return min(max(completed, 0), total) if isinstance(completed, int) else 0
