"""What web workers hold of the runtime: a way to the supervisor, and leases of loaded models."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import RequestCancelled, RuntimeFailure, SupervisorGone
from runtime.failures import failure
from runtime.messages import Loaded, ModelSpec
from runtime.supervisor.lease import POLL_S, Lease, never
from runtime.wire import Channel, FrameInvalid

SOCKET_NAME = "supervisor.sock"
_RETURN_S = 6.0  # a supervisor that died is back within five seconds
_MOST_LOSSES = 5  # so often a request is put in line again
_ANSWER_S = 30.0  # for questions that are answered from memory, or after the end of one process


class Supervisor:
    """The supervisor of this machine, found by its socket in `run_dir`. Holds no connection; threads may share it."""

    def __init__(self, run_dir: Path) -> None:
        self._path = str(run_dir / SOCKET_NAME)

    def lease(
        self,
        spec: ModelSpec,
        keep_alive_s: float | None = None,
        *,
        caller: str = "",
        is_cancelled: Callable[[], bool] = never,
    ) -> Lease:
        """The model, loaded; it stays so until the lease is closed.

        keep_alive_s: how long the runner stays after its last lease; 0 not at all, negative forever, None as before.
        caller: who asks; callers take turns.
        Raises QueueFull, ModelTooLarge, LoadFailed, SupervisorGone, RequestCancelled.
        """
        request = {"op": "lease", "spec": spec.to_json(), "keep_alive": keep_alive_s, "caller": caller}
        deadline = time.monotonic() + _RETURN_S
        started_ns = time.monotonic_ns()
        losses = 0
        while True:
            channel = self._connect(deadline, is_cancelled)
            try:
                channel.send(request, timeout_s=_ANSWER_S)
                ready = self._await_ready(channel, is_cancelled)
            except (OSError, FrameInvalid) as error:
                channel.close()
                losses += 1
                if losses >= _MOST_LOSSES:
                    raise _gone(f"the model supervisor stopped answering: {error}") from None
                time.sleep(POLL_S)
                deadline = time.monotonic() + _RETURN_S
                continue  # it died while we waited; nothing was begun, so its successor may be asked again
            except BaseException:
                channel.close()
                raise
            return Lease(channel, ready, load_ns=time.monotonic_ns() - started_ns)

    def ps(self) -> list[Loaded]:
        """The loaded models, the one that stays longest first."""
        return [Loaded.from_json(entry) for entry in self._ask({"op": "ps"})["models"]]

    def unload(self, identity: str) -> bool:
        """End the runner of that model once it is idle. Returns whether there was one."""
        return bool(self._ask({"op": "unload", "identity": identity})["was_loaded"])

    def make_room(self, lacking: int, since: float) -> float | None:
        """End what has been idle longest, so that files of so many bytes are kept no more.

        since: when, by the monotonic clock, there was found to be no room; if some has been made after that, it is to
        do. Returns 0 when it is done, in how many seconds to ask again, or None where that cannot be.
        """
        wait_s = self._ask({"op": "make_room", "lacking": lacking, "since": since})["wait_s"]
        return None if wait_s is None else float(wait_s)

    def ping(self) -> int:
        """The supervisor's process id. Raises SupervisorGone at once where nobody answers."""
        return int(self._ask({"op": "ping"}, wait_s=0)["pid"])

    def stop(self) -> None:
        """Tell the supervisor to let running streams finish and end."""
        self._ask({"op": "stop"}, wait_s=0)

    def _ask(self, request: dict[str, Any], *, wait_s: float = _RETURN_S) -> dict[str, Any]:
        with self._connection(time.monotonic() + wait_s) as channel:
            channel.send(request, timeout_s=_ANSWER_S)
            answer = channel.receive(timeout_s=_ANSWER_S)
        if answer is None:
            raise _gone("the model supervisor closed the connection")
        if answer.get("event") == "error":
            raise _refusal(answer)
        return answer

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[Channel]:
        channel = self._connect(deadline, never)
        try:
            yield channel
        except (OSError, FrameInvalid) as error:
            raise _gone(f"the model supervisor does not answer: {error}") from None
        finally:
            channel.close()

    def _connect(self, deadline: float, is_cancelled: Callable[[], bool]) -> Channel:
        while True:
            if is_cancelled():
                raise RequestCancelled("request canceled")
            try:
                return Channel.connect(self._path, timeout_s=1.0)
            except OSError as error:
                if time.monotonic() >= deadline:
                    reason = os.strerror(error.errno) if error.errno else str(error)
                    raise _gone(f"the model supervisor cannot be reached: {reason}") from None
            time.sleep(POLL_S)  # until the deadline: a socket file that does not exist yet cannot be waited for

    def _await_ready(self, channel: Channel, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        while True:
            if is_cancelled():
                raise RequestCancelled("request canceled")
            try:
                event = channel.receive(timeout_s=POLL_S)
            except TimeoutError:
                continue
            if event is None:
                raise ConnectionResetError("closed while the model was waited for")
            if event["event"] == "ready":
                return event
            if event["event"] == "error":
                raise _refusal(event)


def _refusal(event: dict[str, Any]) -> RuntimeFailure:
    """The error that the supervisor tells of, with when to ask again where it says so."""
    error = failure(event)
    if isinstance(event.get("retry_after_s"), int):
        error.detail["retry_after_s"] = event["retry_after_s"]
    return error


def _gone(message: str) -> SupervisorGone:
    return SupervisorGone(message, retry_after_s=math.ceil(_RETURN_S))
