"""Work in threads of their own, watched by requests: how far it is, how it ended, and how to end it early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from registry.remotes.errors import RemoteError

T = TypeVar("T")


class Cancelled(RemoteError):
    """Nobody waits for the work any more."""


class Job(Generic[T]):
    """`work`, told of this job, in a thread of its own. `completed`: how many bytes of it are done."""

    def __init__(self, work: Callable[[Job[T]], T], *, abort: Callable[[], None] = lambda: None) -> None:
        """abort: ends whatever the work may wait for; called once, by `cancel`."""
        self._work = work
        self._abort = abort
        self._ended, self._cancelled = threading.Event(), threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._unwatched_until = float("inf")
        self._lock = threading.Lock()  # whether it is given up: decided once, by who is first
        self.completed = 0

    def start(self) -> None:
        threading.Thread(target=self._run, name="transfer", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so long."""
        return self._ended.wait(seconds)

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether it was given up, and its thread still finds out."""
        return self._cancelled.is_set() and not self._ended.is_set()

    def result(self) -> T:
        """What the work, which has ended, returned. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set unless there is an error

    def cancel(self) -> None:
        """Ask it to end, unless it has, and cut its connections. Returns at once; the thread may take a moment."""
        with self._lock:
            is_first = not (self._ended.is_set() or self._cancelled.is_set())
            if is_first:
                self._cancelled.set()
        if is_first:
            self._abort()

    def end_at(self, moment: float) -> bool:
        """Let it go on until that moment of the monotonic clock, and end it then; a later call sets another one.

        False where it has been given up: it stays so.
        """
        with self._lock:
            self._unwatched_until = moment
            return not self._cancelled.is_set()

    def check(self) -> None:
        """For the work itself, now and then. Raises Cancelled."""
        with self._lock:
            if time.monotonic() > self._unwatched_until:
                self._cancelled.set()  # before anybody learns of it: who comes from now on begins anew
        if self._cancelled.is_set():
            raise Cancelled("the transfer was given up")

    def sleep(self, seconds: float) -> None:
        """For the work itself. Raises Cancelled as soon as it is."""
        self._cancelled.wait(seconds)
        self.check()

    def _run(self) -> None:
        try:
            self._result = self._work(self)
        except RemoteError as error:
            self._error = error if self._is_reason(error) else Cancelled("the transfer was given up")
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _is_reason(self, error: RemoteError) -> bool:
        """False where its connections were cut because nobody waits any more."""
        return not (error.is_transient and self._cancelled.is_set())


@contextmanager
def started(job: Job[T]) -> Iterator[Job[T]]:
    """The job at work, for one watcher; leaving the block ends it."""
    job.start()
    try:
        yield job
    finally:
        job.cancel()


@dataclass(slots=True)
class _Shared:
    job: Job[Any]
    watchers: int = 0


class Jobs:
    """Jobs of this process by what they do: whoever wants the same joins in, and the last to leave ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[Hashable, _Shared] = {}

    @contextmanager
    def joined(self, key: Hashable, make: Callable[[], Job[T]], *, linger_s: float = 0.0) -> Iterator[Job[T]]:
        """The job under way for `key`, or a new one, started. linger_s: how long it goes on when nobody watches."""
        shared = self._join(key, make)
        try:
            yield shared.job
        finally:
            self._leave(key, shared, linger_s)

    def _join(self, key: Hashable, make: Callable[[], Job[Any]]) -> _Shared:
        with self._lock:
            shared = self._shared.get(key)
            if shared is None or shared.job.has_ended or not shared.job.end_at(float("inf")):
                shared = _Shared(make())
                shared.job.start()  # before anybody can find it: one that never began would be waited for without end
                self._shared[key] = shared
            shared.watchers += 1
            return shared

    def _leave(self, key: Hashable, shared: _Shared, linger_s: float) -> None:
        with self._lock:
            shared.watchers -= 1
            is_last = shared.watchers == 0
            if is_last and linger_s:
                shared.job.end_at(time.monotonic() + linger_s)
            elif is_last and self._shared.get(key) is shared:
                del self._shared[key]
            for each in [each for each, other in self._shared.items() if not other.watchers and other.job.has_ended]:
                del self._shared[each]
        if is_last and not linger_s:
            shared.job.cancel()
