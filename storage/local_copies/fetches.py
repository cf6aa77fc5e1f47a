"""What this process brings here: each blob once, in a thread of its own, however many requests wait for it.

A request that is given up leaves the work to go on: whoever asks next, perhaps the same client, finds it done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from storage.digest import Digest
from storage.errors import StorageError, StorageUnavailable

_POLL_S: Final = 0.1  # how often a request that waits looks whether its client is still there
_TURN_POLL_S: Final = 0.5  # how long the thread of a fetch outlives those who wanted it, before it has begun
_log: Final = logging.getLogger("tonnage.copies")


Work = Callable[[Callable[[StorageError], None]], None]  # given how to say that it has failed before it has tidied up


@dataclass(slots=True, eq=False)
class _Job:
    work: Work
    waiting: int = 0
    failure: StorageError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def fail(self, failure: StorageError) -> None:
        self.failure = failure
        self.done.set()


class Fetches:
    """at_once: how many run at a time; the others wait their turn. waiting: how many requests may wait for them."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._slots = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(waiting)
        self._lock = threading.Lock()
        self._jobs: dict[Digest, _Job] = {}

    def wait_for(self, digest: Digest, work: Work, go_on: Callable[[], None]) -> None:
        """Return when `work` is done, which is begun unless it is under way. go_on: raises where nobody waits any more.

        Raises what `work` raises, and StorageUnavailable where too many wait: they hold threads that others need.
        """
        with self._place():
            job = self._join(digest, work)
            try:
                while not job.done.wait(_POLL_S):
                    go_on()
            finally:
                with self._lock:
                    job.waiting -= 1
        if job.failure is not None:
            raise type(job.failure)(str(job.failure), **job.failure.detail) from job.failure

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise StorageUnavailable("as many requests wait for weights as may; try again in a moment")
        try:
            yield
        finally:
            self._places.release()

    def _join(self, digest: Digest, work: Work) -> _Job:
        with self._lock:
            job = self._jobs.get(digest)
            if job is None:
                job = _Job(work)
                threading.Thread(target=self._run, args=(digest, job), name="fetch", daemon=True).start()
                self._jobs[digest] = job  # not before: nobody would ever do what has no thread
            job.waiting += 1
            return job

    def _run(self, digest: Digest, job: _Job) -> None:
        while not self._slots.acquire(timeout=_TURN_POLL_S):
            if self._is_given_up(digest, job):
                return
        try:
            if not self._is_given_up(digest, job):
                self._work(digest, job)
        finally:
            self._slots.release()

    def _is_given_up(self, digest: Digest, job: _Job) -> bool:
        """Whether all have left before its turn came; it is forgotten then."""
        with self._lock:
            if not job.waiting:
                del self._jobs[digest]
            return not job.waiting

    def _work(self, digest: Digest, job: _Job) -> None:
        try:
            job.work(job.fail)
        except StorageError as error:
            job.failure = error
        except Exception:
            _log.exception("unexpected error digest=%s", digest)
            job.failure = StorageUnavailable("the weights could not be fetched; see the server's log")
        finally:
            with self._lock:
                del self._jobs[digest]
            job.done.set()
