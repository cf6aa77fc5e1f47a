"""The runner's socket. One thread turns between connections and the engine, so nothing is shared and nothing locks."""

from __future__ import annotations

import selectors
import socket
import time
from typing import Any

from runtime.errors import InputInvalid, RuntimeFailure
from runtime.failures import error_event
from runtime.messages import GenerateRequest
from runtime.runner.embedding import EmbedJob
from runtime.runner.engine import Engine
from runtime.runner.library import Vocabulary
from runtime.runner.sequence import Sequence
from runtime.wire import FrameDecoder, FrameInvalid, encode_frame

_RECEIVE_BYTES = 64 * 1024
_CONGESTED_BYTES = 1024 * 1024
_MOST_CONNECTIONS = 1024
_STALL_S = 60.0  # a reader that takes nothing for so long loses its slot
_REST_S = 0.05


class Connection:
    """One client and its one request. Bytes that the socket does not take now wait here."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.decoder = FrameDecoder()
        self.task: Sequence | EmbedJob | None = None
        self.is_broken = False
        self._unsent = bytearray()
        self._moved_at = time.monotonic()

    def send(self, event: dict[str, Any]) -> None:
        """Sink.send"""
        if self.is_broken:
            return
        try:
            self._unsent += encode_frame(event)
        except FrameInvalid as error:
            self._unsent += encode_frame(error_event(RuntimeFailure(str(error))))
        self.flush()

    @property
    def is_congested(self) -> bool:
        """Sink.is_congested"""
        return len(self._unsent) > _CONGESTED_BYTES

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def is_stalled(self) -> bool:
        return bool(self._unsent) and time.monotonic() - self._moved_at > _STALL_S

    def flush(self) -> None:
        """Write what the socket takes."""
        try:
            sent = self.stream.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.is_broken = True
            return
        del self._unsent[:sent]
        self._moved_at = time.monotonic()


class Server:
    """Takes requests from the listening socket until the control channel closes: then the supervisor is gone."""

    def __init__(self, engine: Engine, vocabulary: Vocabulary, listener: socket.socket, control: socket.socket) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._listener = listener
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Run until the supervisor closes the control channel."""
        timeout_s: float | None = None
        while True:
            for key, events in self._selector.select(timeout_s):
                if key.fileobj is self._control:
                    return  # it says nothing after the settings: readable means closed
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._attend(key.data, events)
            has_moved = self._engine.has_work and self._engine.step()
            self._tidy()
            timeout_s = 0.0 if has_moved else self._patience()

    def _patience(self) -> float | None:
        """How long to wait for sockets when nothing could be computed."""
        if self._engine.has_work:
            return _REST_S
        return 1.0 if any(connection.has_unsent for connection in self._connections) else None

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= _MOST_CONNECTIONS:
            stream.close()
            return
        connection = Connection(stream)
        self._connections.add(connection)
        self._selector.register(stream, selectors.EVENT_READ, connection)

    def _attend(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            connection.flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            received = connection.stream.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            connection.is_broken = True
            return
        try:
            connection.decoder.feed(received)
            request = connection.decoder.next()
        except FrameInvalid:
            connection.is_broken = True
            return
        if request is not None:
            self._begin(connection, request)

    def _begin(self, connection: Connection, request: dict[str, Any]) -> None:
        if connection.task is not None:
            connection.is_broken = True  # one request a connection
            return
        try:
            connection.task = self._answer(connection, request)
        except RuntimeFailure as error:
            connection.send(error_event(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            connection.send(error_event(InputInvalid(f"the request cannot be read: {error!r}")))

    def _answer(self, connection: Connection, request: dict[str, Any]) -> Sequence | EmbedJob | None:
        match request.get("op"):
            case "generate":
                return self._engine.generate(GenerateRequest.from_json(request["request"]), connection)
            case "embed":
                inputs = [str(text) for text in request["inputs"]]
                return self._engine.embed(inputs, connection, truncate=bool(request["truncate"]))
            case "tokenize":
                tokens = self._vocabulary.tokenize(request["text"], add_special=bool(request["add_special"]))
                connection.send({"event": "done", "tokens": tokens})
            case "count":
                tokens = self._vocabulary.tokenize(request["text"], add_special=False)
                begins = self._vocabulary.adds_begin and tokens[:1] != [self._vocabulary.begin]
                connection.send({"event": "done", "tokens": len(tokens) + begins})
            case "detokenize":
                connection.send({"event": "done", "text": self._vocabulary.text(request["tokens"])})
            case unknown:
                raise InputInvalid(f"a runner cannot do {unknown!r}")
        return None

    def _tidy(self) -> None:
        """Let go of those who left, and ask to hear when those who are behind can take more."""
        for connection in tuple(self._connections):
            if connection.is_broken or connection.is_stalled:
                if connection.task is not None:
                    self._engine.cancel(connection.task)
                self._selector.unregister(connection.stream)
                connection.stream.close()
                self._connections.discard(connection)
                continue
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
            if self._selector.get_key(connection.stream).events != wanted:
                self._selector.modify(connection.stream, wanted, connection)
