"""Text from outside, made fit for a terminal or a one-line message."""

from __future__ import annotations

import re

# C0 but tab and newline, DEL, C1 and the bidirectional overrides: they move cursors, rewrite lines or hide words.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` without control characters; newlines and tabs stay."""
    return _CONTROLS.sub("", text)


def one_line(text: str, limit: int = 300) -> str:
    """`text` as one printable line of at most `limit` characters."""
    line = " ".join(printable(text[: 4 * limit].replace("\r", " ")).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
