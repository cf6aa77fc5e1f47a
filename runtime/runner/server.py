"""The runner's socket. One thread turns between connections and the engine, so little is shared and nothing waits.

What would keep the answers of others waiting, reading a text of megabytes or seeing an image, is done by a few threads
beside it.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from runtime.errors import InputInvalid, RuntimeFailure
from runtime.failures import error_event
from runtime.messages import GenerateRequest
from runtime.runner.embedding import EmbedJob
from runtime.runner.engine import Engine
from runtime.runner.heartbeat import Heartbeat
from runtime.runner.library import Vocabulary
from runtime.runner.sequence import Sequence
from runtime.wire import FrameDecoder, FrameInvalid, encode_frame

_RECEIVE_BYTES = 64 * 1024
_CONGESTED_BYTES = 1024 * 1024
_MOST_CONNECTIONS = 1024
_STALL_S = 60.0  # a reader that takes nothing for so long loses its slot
_REST_S = 0.05
_LONG_TEXT = 32 * 1024  # characters; to read them takes some milliseconds
_READERS = 2
_MOST_ROUNDS = 64  # of listening before a step: whoever sends without end does not keep the others from computing
Task = Sequence | EmbedJob


class Connection:
    """One client and its one request. Bytes that the socket does not take now wait here."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.decoder = FrameDecoder()
        self.task: Task | None = None
        self.reading: Future[Any] | None = None
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
    def is_gone(self) -> bool:
        """Sink.is_gone"""
        if self.is_broken:
            return True
        try:
            return self.stream.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

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
        self._heartbeat = Heartbeat(control)
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._readers = ThreadPoolExecutor(_READERS, "reader")
        self._read: deque[tuple[Connection, Future[Any]]] = deque()
        self._woken = os.eventfd(0, os.EFD_NONBLOCK)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Run until the supervisor closes the control channel."""
        timeout_s: float | None = None
        while self._listen(timeout_s):
            has_moved = self._step()
            self._tidy()
            timeout_s = 0.0 if has_moved else self._patience()

    def _listen(self, timeout_s: float | None) -> bool:
        """Hear all who speak: those that come at once are read in one step. False once the supervisor is gone."""
        for _ in range(_MOST_ROUNDS):
            ready = self._selector.select(timeout_s)
            for key, events in ready:
                if key.fileobj is self._control:
                    return False  # it says nothing after the settings: readable means closed
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd == self._woken:
                    os.eventfd_read(self._woken)
                    self._take_read()
                else:
                    self._attend(key.data, events)
            if not any(_may_go_on(key.data) for key, events in ready if events & selectors.EVENT_READ):
                break
            timeout_s = 0.0
        return True

    def _step(self) -> bool:
        if not self._engine.has_work:
            return False
        self._heartbeat.busy()
        has_moved = self._engine.step()
        self._heartbeat.step()
        return has_moved

    def _patience(self) -> float | None:
        """How long to wait for sockets when nothing could be computed."""
        if self._engine.has_work:
            return _REST_S
        beat_s = self._heartbeat.idle()
        if any(connection.has_unsent for connection in self._connections):
            return 1.0 if beat_s is None else min(beat_s, 1.0)
        return beat_s

    def _accept(self) -> None:
        """All who wait at the door."""
        for _ in range(_MOST_CONNECTIONS):
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
            connection.is_broken |= not connection.decoder.is_empty

    def _begin(self, connection: Connection, request: dict[str, Any]) -> None:
        if connection.task is not None or connection.reading is not None:
            connection.is_broken = True  # one request a connection
            return
        if not _is_long(request):
            self._finish(connection, lambda: self._answer(connection, request))
            return
        connection.reading = self._readers.submit(self._answer, connection, request)
        connection.reading.add_done_callback(lambda future: self._wake(connection, future))

    def _wake(self, connection: Connection, future: Future[Any]) -> None:
        """Called in a reader's thread."""
        self._read.append((connection, future))
        os.eventfd_write(self._woken, 1)

    def _take_read(self) -> None:
        while self._read:
            connection, future = self._read.popleft()
            if not connection.is_broken and not future.cancelled():
                self._finish(connection, future.result)

    def _finish(self, connection: Connection, answer: Callable[[], Task | dict[str, Any]]) -> None:
        """Put what was read in line, or send the answer it is already."""
        try:
            read = answer()
            if isinstance(read, dict):
                connection.send(read)
            else:
                connection.task = read
                self._engine.submit(read)
        except RuntimeFailure as error:
            connection.send(error_event(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            connection.send(error_event(InputInvalid(f"the request cannot be read: {error!r}")))
        except Exception as error:  # nothing has been computed: it is this one request's
            traceback.print_exc()
            connection.send(error_event(RuntimeFailure(f"the request could not be read: {error!r}")))

    def _answer(self, connection: Connection, request: dict[str, Any]) -> Task | dict[str, Any]:
        """May run in a reader's thread: computes nothing, sends nothing."""
        match request.get("op"):
            case "generate":
                return self._engine.prepare(GenerateRequest.from_json(request["request"]), connection)
            case "embed":
                inputs = [str(text) for text in request["inputs"]]
                return self._engine.embed_job(inputs, connection, truncate=bool(request["truncate"]))
            case "rerank":
                documents = [str(text) for text in request["documents"]]
                query = str(request["query"])
                return self._engine.rank_job(query, documents, connection, truncate=bool(request["truncate"]))
            case "tokenize":
                tokens = self._vocabulary.tokenize(request["text"], add_special=bool(request["add_special"]))
                return {"event": "done", "tokens": tokens}
            case "count":
                tokens = self._vocabulary.tokenize(request["text"], add_special=False)
                begins = self._vocabulary.adds_begin and tokens[:1] != [self._vocabulary.begin]
                return {"event": "done", "tokens": len(tokens) + begins}
            case "detokenize":
                return {"event": "done", "text": self._vocabulary.text(request["tokens"])}
            case unknown:
                raise InputInvalid(f"a runner cannot do {unknown!r}")

    def _tidy(self) -> None:
        """Let go of those who left, and ask to hear when those who are behind can take more."""
        for connection in tuple(self._connections):
            if connection.is_broken or connection.is_stalled:
                connection.is_broken = True
                if connection.reading is not None:
                    connection.reading.cancel()
                if connection.task is not None:
                    self._engine.cancel(connection.task)
                self._selector.unregister(connection.stream)
                connection.stream.close()
                self._connections.discard(connection)
                continue
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
            if self._selector.get_key(connection.stream).events != wanted:
                self._selector.modify(connection.stream, wanted, connection)


def _may_go_on(connection: Connection | None) -> bool:
    """Whether more can be heard: from the door, the readers, or a client that is still there."""
    return connection is None or not connection.is_broken


def _is_long(request: dict[str, Any]) -> bool:
    """Whether to read it takes so long that answers would falter."""
    asked = request.get("request")
    if isinstance(asked, dict):
        return bool(asked.get("images") or asked.get("format")) or _size(asked.get("prompt")) > _LONG_TEXT
    texts = [request.get(key) for key in ("inputs", "documents", "text", "query")]
    return sum(map(_size, texts)) > _LONG_TEXT


def _size(value: object) -> int:
    """Characters of a text, or of a list of them."""
    if isinstance(value, list):
        return sum(_size(each) for each in value if isinstance(each, str))
    return len(value) if isinstance(value, str) else 0
