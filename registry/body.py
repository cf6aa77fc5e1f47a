"""The body of a request as a stream that ends in OSError when the client breaks it off."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from registry.wsgi_input import reader_of

_DISCARD_S = 2.0


@runtime_checkable
class Patient(Protocol):
    """A connection that can be told how long to wait from now on."""

    def be_patient_for(self, seconds: float) -> None: ...


class BodyBroken(OSError):
    """The client, or its connection, stopped in the middle of the body."""


class RequestBody:
    """Reads the server's own input: Werkzeug's wrapper would turn a lost client into a 400 of its own."""

    def __init__(self) -> None:
        self._input = reader_of(request.environ["wsgi.input"])
        self._connection = request.environ.get("gunicorn.socket")
        self._left = request.content_length
        if self._left is None and not request.environ.get("wsgi.input_terminated"):
            self._left = 0  # a server that marks no end of a chunked body would let us read for ever

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises BodyBroken."""
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
            if size == 0:
                return b""
        try:
            piece: bytes = self._input.read(size)
        except Exception as error:  # the server's parser errors share no base with OSError
            raise BodyBroken(f"the request body broke off: {error}") from error
        if self._left is not None:
            if not piece:
                raise BodyBroken("the request body ended before its length")
            self._left -= len(piece)
        return piece

    def discard(self, limit: int) -> int:
        """Read away up to a little over `limit` bytes, for two seconds at most; returns how many there were.

        A connection closed over unread bytes is reset, and a client that still sends never sees our answer.
        """
        total = 0
        deadline = time.monotonic() + _DISCARD_S
        step = 64 * 2**10 if self._left is not None else 2**10  # chunks may be of one byte, and be collected for us
        if isinstance(self._connection, Patient):
            self._connection.be_patient_for(_DISCARD_S)  # a client that sends nothing would be waited for much longer
        try:
            while total <= limit and time.monotonic() < deadline and (piece := self.read(step)):
                total += len(piece)
        except OSError:
            pass  # nobody is there to be answered
        return total


def read_body(limit: int) -> bytes:
    """The whole body, at most `limit` bytes. Raises RequestEntityTooLarge, OSError."""
    body = RequestBody()
    pieces: list[bytes] = []
    total = 0
    while piece := body.read(min(2**20, limit + 1 - total)):
        pieces.append(piece)
        total += len(piece)
        if total > limit:
            raise RequestEntityTooLarge(f"the body may have at most {limit} bytes")
    return b"".join(pieces)
