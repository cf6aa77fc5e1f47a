"""Frames between our processes: four bytes of length, big end first, then one JSON object in UTF-8.

A peer may have parsed hostile bytes, so nothing it says is executed or trusted: frames are bounded, only JSON objects
are taken, and a stream that ends inside a frame is told apart from one that ends between two.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

MAX_FRAME_BYTES = 80 * 1024 * 1024  # the largest request, 64 MiB, and what its JSON escapes
_LENGTH = struct.Struct(">I")
_RECEIVE_BYTES = 64 * 1024
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class FrameInvalid(Exception):
    """The peer sent something that is not a frame, or stopped in the middle of one."""


def encode_frame(body: Mapping[str, Any]) -> bytes:
    """The bytes of one frame. Raises FrameInvalid where `body` is too large or not JSON."""
    try:
        payload = _encode(body).encode("utf-8", "replace")  # JSON may hold lone surrogates, UTF-8 may not
    except (TypeError, ValueError) as error:
        raise FrameInvalid(f"not JSON: {error}") from None
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameInvalid(f"a frame of {len(payload)} bytes is larger than {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Bytes in, as they arrive; whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> None:
        self._buffer += received

    def next(self) -> dict[str, Any] | None:
        """The next whole frame, or None where more bytes are needed. Raises FrameInvalid."""
        payload = self.next_payload()
        return None if payload is None else decode_payload(payload)

    def next_payload(self) -> bytes | None:
        """The bytes of the next whole frame, for `decode_payload`; None where more are needed. Raises FrameInvalid."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        _check_length(length)
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return payload

    @property
    def is_empty(self) -> bool:
        """Whether the stream may end here."""
        return not self._buffer


class Channel:
    """A connected socket that carries frames, for threads that may wait."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = FrameDecoder()

    @classmethod
    def connect(cls, path: str, *, timeout_s: float) -> Channel:
        """Open the Unix socket at `path`. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def send(self, body: Mapping[str, Any], *, timeout_s: float | None = None) -> None:
        """Send one frame whole. Raises FrameInvalid, and OSError (TimeoutError too), after which nothing may follow."""
        self.send_frame(encode_frame(body), timeout_s=timeout_s)

    def send_frame(self, frame: bytes, *, timeout_s: float | None = None) -> None:
        """Send what `encode_frame` made. Raises OSError, after which nothing may follow."""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(frame)

    def send_some(self, data: memoryview, *, timeout_s: float) -> int:
        """Send as much of a frame as the peer takes; the rest has to follow. Returns how many bytes that was.

        Raises TimeoutError where it takes nothing for `timeout_s` seconds, and OSError.
        """
        self._socket.settimeout(timeout_s)
        return self._socket.send(data)

    def receive(self, *, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next frame; None where the peer closed between two frames.

        Raises TimeoutError where none is whole after `timeout_s` seconds without a byte; what has arrived is kept, so
        the call may be repeated. Raises FrameInvalid and OSError.
        """
        frame = self._decoder.next()
        if frame is not None:
            return frame
        self._socket.settimeout(timeout_s)
        while True:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                if self._decoder.is_empty:
                    return None
                raise FrameInvalid("the peer closed in the middle of a frame")
            self._decoder.feed(received)
            frame = self._decoder.next()
            if frame is not None:
                return frame

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


async def read_frame(reader: asyncio.StreamReader, *, max_bytes: int = MAX_FRAME_BYTES) -> dict[str, Any] | None:
    """The next frame of an asyncio stream; None where the peer closed between two. Raises FrameInvalid, OSError.

    max_bytes: the largest frame that makes sense here; a peer's word for a larger one is not taken.
    """
    try:
        header = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise FrameInvalid("the peer closed in the middle of a frame") from None
        return None
    (length,) = _LENGTH.unpack(header)
    _check_length(length, max_bytes)
    try:
        payload = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise FrameInvalid("the peer closed in the middle of a frame") from None
    return decode_payload(payload)


def _check_length(length: int, max_bytes: int = MAX_FRAME_BYTES) -> None:
    if length > max_bytes:
        raise FrameInvalid(f"a frame of {length} bytes is larger than {max_bytes}")


def decode_payload(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        raise FrameInvalid("a frame is not JSON") from None
    if not isinstance(body, dict):
        raise FrameInvalid("a frame is not a JSON object")
    return body
