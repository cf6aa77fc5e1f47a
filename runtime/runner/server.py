"""The runner's socket. One thread turns between connections and the engine, so little is shared and nothing waits.

What would keep the answers of others waiting, reading a text of megabytes or seeing an image, is done by a few threads
beside it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputInvalid, RuntimeFailure
from runtime.failures import error_event
from runtime.messages import GenerateRequest
from runtime.runner import words
from runtime.runner.embedding import EmbedJob
from runtime.runner.engine import Engine
from runtime.runner.heartbeat import Heartbeat
from runtime.runner.library import Vocabulary
from runtime.runner.readers import Readers
from runtime.runner.sequence import Sequence
from runtime.runner.words import WordsOnly
from runtime.wire import FrameDecoder, FrameInvalid, decode_payload, encode_frame

_RECEIVE_BYTES = 64 * 1024
_CONGESTED_BYTES = 1024 * 1024
_MOST_CONNECTIONS = 1024
_STALL_S = 60.0  # a reader that takes nothing for so long loses its slot
_REST_S = 0.05
_LONG_BYTES = 32 * 1024  # of a request; to read it takes some milliseconds
_SEEN_PER_SLOT = 2  # requests with images that are read or answered; each may hold many megabytes
_MOST_ROUNDS = 64  # of listening before a step: whoever sends without end does not keep the others from computing
Task = Sequence | EmbedJob


@dataclass(frozen=True, slots=True)
class Later:
    """A request that other threads go on with."""

    readers: Readers
    caller: str
    work: Callable[[], None]


Work = Task | dict[str, Any] | bytes | Later  # bytes are the frame of an answer
Answer = Callable[[], Work]


class Connection:
    """One client and its one request. Bytes that the socket does not take now wait here."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.decoder = FrameDecoder()
        self.task: Task | None = None
        self.is_reading = self.sees = self.is_broken = False
        self._unsent = bytearray()
        self._moved_at = time.monotonic()

    def send(self, event: dict[str, Any]) -> None:
        """Sink.send"""
        if not self.is_broken:
            self.send_frame(_frame(event))

    def send_frame(self, frame: bytes) -> None:
        """Send what `_frame` made."""
        if not self.is_broken:
            self._unsent += frame
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
    def is_closed(self) -> bool:
        return self.stream.fileno() < 0

    def close(self) -> None:
        self.is_broken = True
        self.stream.close()

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

    def __init__(
        self, engine: Engine | WordsOnly, vocabulary: Vocabulary, listener: socket.socket, control: socket.socket
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._listener = listener
        self._control = control
        self._heartbeat = Heartbeat(control)
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._texts, self._images = Readers("texts"), Readers("images")
        self._places = threading.BoundedSemaphore(_SEEN_PER_SLOT * engine.parallel)  # for images
        self._read: deque[tuple[Connection, Answer]] = deque()
        self._woken, self._waker = socket.socketpair()  # where threads tell the loop that something was read
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Run until the supervisor closes the control channel."""
        self._control.setblocking(False)  # a supervisor that stands still must not stop us too
        timeout_s: float | None = None
        while self._listen(timeout_s):
            self._tidy()  # first: nothing is computed for those who have left
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
                elif key.fileobj is self._woken:
                    self._woken.recv(_RECEIVE_BYTES)
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
            payload = connection.decoder.next_payload()
        except FrameInvalid:
            connection.is_broken = True
            return
        if payload is not None:
            self._begin(connection, payload)
            connection.is_broken |= not connection.decoder.is_empty

    def _begin(self, connection: Connection, payload: bytes) -> None:
        if connection.task is not None or connection.is_reading:
            connection.is_broken = True  # one request a connection
            return
        if len(payload) > _LONG_BYTES:
            connection.is_reading = True
            self._texts.add("", connection, lambda: self._wake(connection, lambda: self._decode(connection, payload)))
            return
        self._finish(connection, lambda: self._decode(connection, payload))

    def _decode(self, connection: Connection, payload: bytes) -> Work:
        """What a request comes to, or what has still to be done for it by somebody else."""
        try:
            request = decode_payload(payload)
        except FrameInvalid as error:
            raise InputInvalid(f"the request cannot be read: {error}") from None
        asked = request.get("request")
        caller = str(asked.get("caller", "")) if isinstance(asked, dict) else ""
        if isinstance(asked, dict) and asked.get("images"):
            return Later(self._images, caller, lambda: self._see(connection, request))
        is_slow = (isinstance(asked, dict) and asked.get("format")) or self._engine.needs_preparing(request.get("op"))
        if is_slow and not connection.is_reading:
            return Later(self._texts, caller, lambda: self._wake(connection, lambda: self._answer(connection, request)))
        return self._answer(connection, request)

    def _see(self, connection: Connection, request: dict[str, Any]) -> None:
        """In the thread for images: wait for a place, then read."""
        while not self._places.acquire(timeout=_REST_S):
            if connection.is_gone:
                return
        connection.sees = True
        self._wake(connection, lambda: self._answer(connection, request))

    def _wake(self, connection: Connection, work: Callable[[], Work]) -> None:
        """In a reader's thread: do `work`, and tell the loop."""
        try:
            done = work()
            done = _frame(done) if isinstance(done, dict) else done  # of a million tokens, it takes a while
        except BaseException as error:  # a panic of a library is none of `Exception`; the loop will say what it was
            self._read.append((connection, _raising(error)))
        else:
            self._read.append((connection, lambda: done))
        with contextlib.suppress(BlockingIOError):  # full: the loop has enough to wake up for
            self._waker.send(b"\0")

    def _take_read(self) -> None:
        while self._read:
            connection, answer = self._read.popleft()
            if connection.is_closed:
                self._let_go(connection)
            else:
                self._finish(connection, answer)

    def _finish(self, connection: Connection, answer: Answer) -> None:
        """Put what was read in line, send the answer it is already, or give it to those who go on with it."""
        try:
            read = answer()
            if isinstance(read, Later):
                connection.is_reading = True
                read.readers.add(read.caller, connection, read.work)
            elif isinstance(read, dict):
                connection.send(read)
            elif isinstance(read, bytes):
                connection.send_frame(read)
            else:
                connection.task = read
                self._engine.submit(read)
        except RuntimeFailure as error:
            connection.send(error_event(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            connection.send(error_event(InputInvalid(f"the request cannot be read: {error!r}")))
        except BaseException as error:  # nothing has been computed: it is this one request's
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
            case "tokenize" | "count" | "detokenize" | "pieces" as op:
                return words.answer(op, request, self._vocabulary)
            case unknown:
                raise InputInvalid(f"a runner cannot do {unknown!r}")

    def _tidy(self) -> None:
        """Let go of those who left, and ask to hear when those who are behind can take more."""
        for connection in tuple(self._connections):
            if connection.is_broken or connection.is_stalled:
                self._selector.unregister(connection.stream)
                self._connections.discard(connection)
                connection.close()
                self._texts.drop(connection)
                self._images.drop(connection)
                self._let_go(connection)
                continue
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
            if self._selector.get_key(connection.stream).events != wanted:
                self._selector.modify(connection.stream, wanted, connection)

    def _let_go(self, connection: Connection) -> None:
        """Give back what a connection has that is closed; what it was reading comes back later."""
        if connection.task is not None:
            self._engine.cancel(connection.task)
            connection.task = None  # which knows the connection
        if connection.sees:
            connection.sees = False
            self._places.release()


def _frame(event: dict[str, Any]) -> bytes:
    try:
        return encode_frame(event)
    except FrameInvalid as error:
        return encode_frame(error_event(RuntimeFailure(str(error))))


def _may_go_on(connection: Connection | None) -> bool:
    """Whether more can be heard: from the door, the readers, or a client that is still there."""
    return connection is None or not connection.is_broken


def _raising(error: BaseException) -> Answer:
    def answer() -> Work:
        raise error

    return answer
