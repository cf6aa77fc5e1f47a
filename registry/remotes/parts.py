"""A blob's bytes over several connections at once, in order, with its cuts overcome.

Spec: "Pulling blobs"; the Ollama registry protocol, "Parts".
"""

from __future__ import annotations

import threading
from typing import Final, Self

from registry.remotes.endpoint import BlobBody, RemoteRepository
from registry.remotes.errors import (
    AddressLapsed,
    AnswerInvalid,
    ConnectionCut,
    RemoteError,
    ServerBusy,
    Unauthorized,
)
from registry.remotes.pace import paced
from registry.remotes.retry import Retry
from registry.remotes.window import Budget, Part, Window
from storage.manifest import Descriptor

LEAST_PARTED: Final = 8 * 1024 * 1024  # bytes; fewer come sooner over one connection than a second one is made
READ_AHEAD: Final = Budget(64 * 1024 * 1024)
_LEAST_PART: Final = 1024 * 1024
_MOST_PART: Final = 8 * 1024 * 1024
_PARTS: Final = 128  # of a blob: a process that is killed loses the few it had in memory
_LAPSED: Final = {401, 403, 404, 410}


class Parts:
    """The blob's bytes from `start` to before `end`. Use as a context manager: leaving it ends every thread.

    Each request is made anew at the registry's own URL: an address elsewhere that it gives out is used once. A cut part
    goes on where it stopped. Who is refused while others are at work leaves the rest to them.
    """

    def __init__(
        self,
        remote: RemoteRepository,
        blob: Descriptor,
        start: int,
        end: int,
        *,
        first_pause_s: float = 0.5,
        budget: Budget = READ_AHEAD,
    ) -> None:
        self._remote, self._http = remote.branch()
        self._blob, self._end, self._first_pause_s = blob, end, first_pause_s
        self._is_parted = end - start > LEAST_PARTED
        size = min(max(blob.size // _PARTS, _LEAST_PART), _MOST_PART) if self._is_parted else end - start
        self._window = Window(start, end, size, budget)
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._has_begun = False

    def __enter__(self) -> Self:
        self._grow()
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()
        self._over.set()
        self._http.abort()
        while self._threads:
            self._threads.pop().join()
        self._http.close()

    def take(self, limit: int, wait_s: float) -> bytes:
        """Some of the next `limit` bytes, b"" if none come in time. Raises RemoteError, after what came before it."""
        return self._window.take(limit, wait_s)

    def _grow(self, *, is_answered: bool = False) -> None:
        """Start as many connections as are of use."""
        while self._window.join(is_answered=is_answered):
            thread = threading.Thread(target=self._work, name="part", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        try:
            connection = _Connection(Retry(first_s=self._first_pause_s, sleep=self._sleep))
            while (part := self._window.claim()) is not None and self._bring(part, connection):
                self._grow()
        except BaseException as error:
            self._window.fail(error)

    def _bring(self, part: Part, connection: _Connection) -> bool:
        """Until the part is complete, or put back; False where this connection is to end. Raises RemoteError."""
        while part.position < part.end:
            try:
                if not self._ask(part, connection):
                    return self._window.put_back(part)
            except RemoteError as error:
                is_of_no_use = isinstance(error, ServerBusy) or not connection.received
                if self._window.is_over or (error.is_transient and is_of_no_use and self._window.give_up(part)):
                    return False
                connection.retry.reached(connection.received)
                connection.retry.pause(self._judged(error))
        self._window.done()
        return True

    def _ask(self, part: Part, connection: _Connection) -> bool:
        """One request for the rest of the part; False if another is to be made, or none. Raises RemoteError."""
        blob, end = self._blob, part.end if part.end < self._blob.size or self._is_parted else None
        with self._remote.open_blob(blob.digest, blob.size, start=part.position, end=end) as body:
            if body.end > part.end:  # a server that knows no ranges, or for now says so
                if not self._window.run_on(part):
                    return False
            elif self._is_parted:
                self._grow(is_answered=True)
            if not self._receive(body, part, connection):
                return False
        if part.position < part.end:
            raise ConnectionCut(f"{self._remote.home} ended blob {blob.digest} too soon")
        return True

    def _receive(self, body: BlobBody, part: Part, connection: _Connection) -> bool:
        skip = part.position - body.start
        for piece in paced(body):
            wanted = piece[skip : skip + part.end - part.position]
            if len(wanted) < len(piece) - skip and body.end <= part.end:
                raise AnswerInvalid("the registry sends more bytes than the blob has")
            skip = max(0, skip - len(piece))
            self._has_begun = True
            connection.received += len(wanted)
            if wanted and not self._window.put(part, wanted):
                return False
            if part.position == part.end < body.end:
                return True
        return True

    def _judged(self, error: RemoteError) -> RemoteError:
        """A refusal elsewhere, of what it gave before: the address has had its time."""
        is_refusal = isinstance(error, Unauthorized) or error.status in _LAPSED
        return AddressLapsed(str(error)) if self._has_begun and error.is_elsewhere and is_refusal else error

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise ConnectionCut("the transfer was given up")


class _Connection:
    """What one thread remembers from request to request. received: bytes that were of use."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.received = 0
