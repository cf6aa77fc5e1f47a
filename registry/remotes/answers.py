"""What a refusal says: a status and the server's words, as one of our errors."""

from __future__ import annotations

import json
import re

from registry.remotes.errors import (
    Forbidden,
    NotFound,
    RangeRefused,
    RemoteError,
    RequestRefused,
    ServerBusy,
    Unauthorized,
)
from registry.remotes.http import Origin, Reply
from registry.remotes.text import one_line

_MAX_WORDS_BYTES = 64 * 1024
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_FINAL_5XX = {501, 505, 507}  # not implemented, HTTP version, no space left: the next attempt fares no better


def failure(reply: Reply, what: str) -> RemoteError:
    """The error for a status that is not what `what` (e.g. "blob sha256:…") should be answered with."""
    code, words = _read(reply)
    error = _kind(reply, what, code, words)
    error.status, error.words = reply.status, words
    return error


def _kind(reply: Reply, what: str, code: str, words: str) -> RemoteError:
    where, status = Origin.of(reply.url), reply.status
    line = f"{where} answered {status} for {what}" + (f": {words}" if words else "")
    if status in {408, 429} or (status >= 500 and status not in _FINAL_5XX):
        return ServerBusy(line, _retry_after(reply))
    if status == 401:
        return Unauthorized(line)
    if status == 403:
        return Forbidden(f"{where} does not allow it for {what}" + (f": {words}" if words else ""))
    if status == 404:
        return NotFound(f"{where} has no {what}" + (f" ({words})" if words else ""))
    if status == 416:
        return RangeRefused(line, session_offset(reply))
    return RequestRefused(line, code)


def server_words(reply: Reply) -> str:
    """The server's own message, one printable line, "" when it has none."""
    return _read(reply)[1]


def session_offset(reply: Reply) -> int | None:
    """Bytes that an upload session holds, from `X-Upload-Offset` or `Range`; None when neither says it.

    `Range: 0-0` is both an empty session and one of a single byte: the specification has no other words for the
    first. It is read as empty; the server corrects us with 416 if it was not.
    """
    exact = reply.header("X-Upload-Offset")
    if exact.isascii() and exact.isdigit() and len(exact) <= 18:
        return int(exact)
    match = _RANGE.fullmatch(reply.header("Range").strip())
    if match is None:
        return None
    return int(match[1]) + 1 if int(match[1]) else 0


def _read(reply: Reply) -> tuple[str, str]:
    """(OCI error code, message) of an error body: the OCI envelope, `{"error": …}` or plain text."""
    try:
        raw = reply.read(_MAX_WORDS_BYTES)
    except RemoteError:  # the status says enough
        return "", ""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        text = raw.decode("utf-8", "replace")
        return "", "" if "<html" in text.lower() else one_line(text)
    first = body.get("errors") if isinstance(body, dict) else None
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return str(first[0].get("code", ""))[:64], one_line(str(first[0].get("message", "")))
    return "", one_line(str(body["error"])) if isinstance(body, dict) and body.get("error") else ""


def _retry_after(reply: Reply) -> float | None:
    text = reply.header("Retry-After")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None
