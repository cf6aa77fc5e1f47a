"""Bodies of /api: one JSON object, or one a line. Source: the Ollama API, "Responses, content types, streaming"."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response

from runtime.api.errors import retry_after_s, status_of
from runtime.errors import RuntimeFailure
from storage.errors import StorageError

JSON = dict[str, Any]
_JSON_TYPE = "application/json; charset=utf-8"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_LINE_BREAKS = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))
log = logging.getLogger("tonnage.runtime")


def encode(body: JSON) -> bytes:
    """`body` as one line for whoever reads it: clients, Python's among them, break lines at more than line feeds."""
    text = _encode(body)
    if not text.isascii():
        for mark, escaped in _LINE_BREAKS:  # which stand in JSON's strings only, where they may be escaped
            text = text.replace(mark, escaped)
    return text.encode("utf-8", "replace")  # half a surrogate pair, from wherever, costs a character, not the answer


def one_object(body: JSON, status: int = 200) -> Response:
    return Response(encode(body), status, content_type=_JSON_TYPE)


def refusal(error: Exception) -> Response:
    """The error body; no other key stands in it, since clients decode it into types of their own."""
    return with_retry_after(one_object({"error": str(error)}, status_of(error)), error)


def with_retry_after(response: Response, error: Exception) -> Response:
    """The refusal of what is refused for now, with when to ask again."""
    wait_s = retry_after_s(error)
    if wait_s is not None:
        response.headers["Retry-After"] = str(wait_s)
    return response


def ndjson(chunks: Iterator[JSON], close: Callable[[], None]) -> Response:
    """Stream `chunks`, one a line. The first is made before the status is sent, so early failures keep theirs.

    close: releases what the chunks are made from; called once, however the stream ends.
    """
    return streamed(map(_line, chunks), close, _broken_off, "application/x-ndjson")


def streamed(
    frames: Iterator[bytes], close: Callable[[], None], failed: Callable[[Exception], bytes], content_type: str
) -> Response:
    """Stream `frames`, as `ndjson` does, in any framing.

    failed: makes the last frame of a stream that an error ends. Of a bug of ours it learns no more than that.
    """
    try:
        first = next(frames)
    except BaseException:
        close()
        raise
    return Response(_Frames(first, frames, close, failed), content_type=content_type)


def _line(chunk: JSON) -> bytes:
    return encode(chunk) + b"\n"


def _broken_off(error: Exception) -> bytes:
    return _line({"error": str(error)})


class _Frames:
    """The frames of a stream. A failure in the middle becomes its last one: the status has long been sent."""

    def __init__(
        self, first: bytes, frames: Iterator[bytes], close: Callable[[], None], failed: Callable[[Exception], bytes]
    ) -> None:
        self._first: bytes | None = first
        self._frames = frames
        self._close = close
        self._failed = failed
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        try:
            return next(self._frames)
        except StopIteration:
            self.close()
            raise
        except (RuntimeFailure, StorageError) as error:
            self.close()
            return self._failed(error)
        except Exception:
            log.exception("a stream broke off")
            self.close()
            return self._failed(RuntimeFailure("internal error"))

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._close()
