"""Request bodies below /v1, which may come compressed. Source: the Ollama API, "Common /v1 rules"."""

from __future__ import annotations

import io
from typing import Final

import zstandard
from flask import request

from runtime.api.errors import Refused
from runtime.api.requests import Body, parse_body, read_raw

MAX_UNPACKED_BYTES: Final = 20 * 2**20
_MAX_WINDOW_BYTES: Final = 2**25  # a frame of one segment asks for a window as large as what it unpacks to


def read_v1_body(limit: int) -> Body:
    """The request's body, of at most `limit` bytes, unpacked where it is zstd. Raises Refused."""
    raw = read_raw(limit)
    if request.headers.get("Content-Encoding", "").strip().lower() == "zstd":
        raw = _unpacked(raw)
    return parse_body(raw, missing="EOF")


def _unpacked(raw: bytes) -> bytes:
    """What `raw` unpacks to; no more of it is made than may be. Raises Refused."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    try:
        with decompressor.stream_reader(io.BytesIO(raw), read_across_frames=True) as reader:
            unpacked = reader.read(MAX_UNPACKED_BYTES + 1)
    except zstandard.ZstdError:
        raise Refused(400, "the request body is not valid zstd") from None
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise Refused(400, f"the request body is larger than {MAX_UNPACKED_BYTES} bytes when it is decompressed")
    return unpacked
