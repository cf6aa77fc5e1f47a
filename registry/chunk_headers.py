"""What the headers of a chunk say of it. Spec: "Pushing a blob in chunks"."""

from __future__ import annotations

import re

from flask import request

from storage.chunks import ChunkRange
from storage.errors import ChunkOutOfOrder

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?\s*(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?")


def chunk_range() -> ChunkRange | None:
    """The Content-Range of a chunk, `<first>-<last>`. Raises ChunkOutOfOrder when it is no range."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise ChunkOutOfOrder("Content-Range must be <first>-<last>", content_range=header[:64])
    return ChunkRange(int(match[1]), int(match[2]))


def may_repeat(chunk: ChunkRange | None) -> bool:
    """The ollama client sends a part again when its answer got lost; refused, it would give the push up.

    Others say that they mean to go back, by where the session then stands.
    """
    is_meant = chunk is not None and request.headers.get("X-Upload-Offset") == str(chunk.first)
    return is_meant or "X-Redirect-Uploads" in request.headers
