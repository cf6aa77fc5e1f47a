"""The bytes of a request's body, without the copies that gunicorn makes of them.

gunicorn collects what it receives in a buffer, copies that when it is asked for, and copies what is left. A body of
known length can be read from the socket itself once that buffer is empty; what gunicorn keeps about it is kept true,
so the connection goes on to its next request as ever.
"""

from __future__ import annotations

import socket
from typing import Any

from gunicorn.http.body import Body, LengthReader


def reader_of(wsgi_input: Any) -> Any:
    """What to call `read` on: `wsgi_input`, or a shorter way to the same bytes."""
    if type(wsgi_input) is not Body:
        return wsgi_input
    reader = wsgi_input.reader
    unreader = getattr(reader, "unreader", None)
    if type(reader) is LengthReader and isinstance(getattr(unreader, "sock", None), socket.socket):
        return _Direct(wsgi_input)
    return wsgi_input


class _Direct:
    """Reads of a body of known length: first what gunicorn has already received, then from the socket."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as many as there are unless the peer is slow; b"" at the end. Raises OSError."""
        reader = self._body.reader
        held = self._body.buf.tell() or reader.unreader.buf.tell()
        if held:
            early: bytes = self._body.read(min(size, held))
            return early
        size = min(size, reader.length)
        if size == 0:
            return b""
        try:
            data: bytes = reader.unreader.sock.recv(size, socket.MSG_WAITALL)
        except OSError:
            self._body.failed = True
            raise
        reader.length -= len(data)
        return data
