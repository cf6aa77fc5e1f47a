"""All runners of this machine and everyone who waits for one. Carries out what `policy.py` decides."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed, QueueFull, RuntimeFailure, SupervisorGone
from runtime.messages import Loaded, ModelSpec
from runtime.supervisor.plan import LoadPlan, plan_load
from runtime.supervisor.policy import Evict, Load, Refuse, Share, Wait, decide, may_share
from runtime.supervisor.runner import Runner
from runtime.supervisor.settings import SupervisorSettings

_QUEUE_FULL = "server busy, please try again.  maximum pending requests exceeded"
_END_S = 5.0  # a killed process is gone sooner, unless the kernel is in trouble
log = logging.getLogger("tonnage.supervisor")


@dataclass(slots=True, eq=False)
class Pending:
    """A request whose model is not there yet."""

    spec: ModelSpec
    plan: LoadPlan
    keep_alive_s: float | None
    notify: Callable[[dict[str, Any]], None]
    granted: asyncio.Future[Runner]

    def refuse(self, error: RuntimeFailure) -> None:
        """Tell the client, unless it hung up in this very turn."""
        if not self.granted.done():
            self.granted.set_exception(error)


class Fleet:
    """Single-threaded: every change ends with `_pump`, which moves the queue as far as it goes."""

    def __init__(self, settings: SupervisorSettings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._runners: dict[str, Runner] = {}
        self._queue: deque[Pending] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._is_stopping = False

    async def lease(
        self, spec: ModelSpec, keep_alive_s: float | None, notify: Callable[[dict[str, Any]], None]
    ) -> Runner:
        """The runner of `spec`, loaded, with one lease more: give it to `release`. Cancelling leaves the queue.

        Raises QueueFull, ModelTooLarge, LoadFailed, SupervisorGone.
        """
        if self._is_stopping:
            raise SupervisorGone("the server is stopping")
        plan = plan_load(spec, self._settings)
        runner = self._shareable(spec.identity, plan)
        if runner is not None:
            return self._grant(runner, keep_alive_s)
        if len(self._queue) >= self._settings.max_queue:
            raise QueueFull(_QUEUE_FULL)
        pending = Pending(spec, plan, keep_alive_s, notify, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        notify({"event": "queued"})
        self._pump()
        try:
            return await pending.granted
        except asyncio.CancelledError:
            self._abandon(pending)
            raise

    def release(self, runner: Runner) -> None:
        """Give back one lease; the keep-alive of an idle runner begins."""
        runner.leases -= 1
        runner.used_at = time.time()
        if not runner.leases:
            self._rest(runner)
        self._pump()

    def ps(self) -> list[Loaded]:
        """Loaded runners, the one that stays longest first."""
        ready = [runner.loaded() for runner in self._runners.values() if not (runner.is_loading or runner.is_ending)]
        return sorted(ready, key=lambda loaded: -loaded.expires_at)

    async def unload(self, identity: str) -> bool:
        """End the runner now if it is idle, else after its last lease. False where there is none."""
        runner = self._runners.get(identity)
        if runner is None:
            return False
        runner.is_leaving = True
        if not runner.leases and not runner.is_loading:
            self._end(runner)
            await runner.ended.wait()
        return True

    async def stop(self) -> None:
        """Refuse whoever waits, let running requests finish within the grace, then end every runner."""
        self._is_stopping = True
        while self._queue:
            self._queue.popleft().refuse(SupervisorGone("the server is stopping"))
        runners = list(self._runners.values())
        for runner in runners:
            runner.is_leaving = True
            if not runner.leases:
                self._end(runner)
        await _all_ended(runners, self._settings.grace_s)
        for runner in runners:
            self._end(runner)
        await _all_ended(runners, _END_S)

    def _pump(self) -> None:
        """Move the queue as far as it goes now."""
        for pending in tuple(self._queue):
            if pending.granted.done():  # given up; its task has not run yet
                self._queue.remove(pending)
        self._share_all()
        while self._queue:
            head = self._queue[0]
            decision = decide(
                head.spec.identity,
                head.plan,
                [runner.state() for runner in self._runners.values()],
                max_loaded=self._settings.loaded_bound,
                budget_bytes=self._settings.budget_bytes,
            )
            match decision:
                case Share():
                    self._queue.popleft()
                    self._grant_to(head, self._runners[head.spec.identity])
                case Refuse(error):
                    self._queue.popleft()
                    head.refuse(error)
                case Load():
                    self._load(head)
                    return
                case Evict(identities):
                    for identity in identities:
                        self._end(self._runners[identity])
                    return
                case Wait(leaving):
                    if leaving is not None:
                        self._runners[leaving].is_leaving = True
                    return

    def _share_all(self) -> None:
        """Grant whatever needs no load: such requests do not wait behind those that do."""
        for pending in tuple(self._queue):
            runner = self._shareable(pending.spec.identity, pending.plan)
            if runner is not None:
                self._queue.remove(pending)
                self._grant_to(pending, runner)

    def _grant_to(self, pending: Pending, runner: Runner) -> None:
        if not pending.granted.done():  # a client that hung up in this very turn has not left the queue yet
            pending.granted.set_result(self._grant(runner, pending.keep_alive_s))

    def _shareable(self, identity: str, plan: LoadPlan) -> Runner | None:
        runner = self._runners.get(identity)
        return runner if runner is not None and may_share(identity, plan, [runner.state()]) else None

    def _grant(self, runner: Runner, keep_alive_s: float | None) -> Runner:
        if keep_alive_s is not None:
            runner.keep_alive_s = keep_alive_s
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None
        runner.leases += 1
        runner.used_at = time.time()
        return runner

    def _abandon(self, pending: Pending) -> None:
        """The client is gone: undo what it was given, or stop what is done for it alone."""
        if pending in self._queue:
            self._queue.remove(pending)
        elif pending.granted.done() and not pending.granted.cancelled() and pending.granted.exception() is None:
            self.release(pending.granted.result())
        runner = self._runners.get(pending.spec.identity)
        is_wanted = any(other.spec.identity == pending.spec.identity for other in self._queue)
        if runner is not None and runner.is_loading and not is_wanted:
            self._end(runner)
        self._pump()

    def _load(self, pending: Pending) -> None:
        self._count += 1
        keep_alive_s = self._settings.keep_alive_s if pending.keep_alive_s is None else pending.keep_alive_s
        socket = self._run_dir / f"r{os.getpid()}-{self._count}.sock"
        runner = Runner(pending.spec, pending.plan, socket, keep_alive_s)
        self._runners[runner.identity] = runner
        task = asyncio.get_running_loop().create_task(self._live(runner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, runner: Runner) -> None:
        """The life of one runner, from its start until its process is gone.

        Whatever goes wrong in it, the runner is forgotten: one that seems to load for ever would block all others.
        """
        try:
            await self._load_and_serve(runner)
        except Exception:
            log.exception("unexpected error name=%s", runner.spec.name)
            self._end(runner)
            self._refuse(runner, LoadFailed("the model could not be loaded; see the server's log"))
        finally:
            await runner.wait()
            self._forget(runner)

    async def _load_and_serve(self, runner: Runner) -> None:
        started = time.monotonic()
        try:
            await runner.load(self._settings, lambda event: self._tell(runner, event))
        except LoadFailed as error:
            log.warning("load failed name=%s error=%s", runner.spec.name, error)
            runner.end()
            self._refuse(runner, error)
        else:
            log.info("loaded name=%s pid=%d seconds=%.2f", runner.spec.name, runner.pid, time.monotonic() - started)
            runner.is_loading, runner.used_at = False, time.time()
            self._pump()
            if not runner.leases:
                self._rest(runner)

    def _forget(self, runner: Runner) -> None:
        runner.is_ending = True
        log.info("gone name=%s pid=%d: %s", runner.spec.name, runner.pid, runner.end_message)
        if runner.expiry is not None:
            runner.expiry.cancel()
        runner.socket.unlink(missing_ok=True)
        del self._runners[runner.identity]
        runner.ended.set()
        self._pump()

    def _refuse(self, runner: Runner, error: RuntimeFailure) -> None:
        """Tell all who wait for this very load; whoever comes later tries anew."""
        for pending in tuple(self._queue):
            if pending.spec.identity == runner.identity and pending.plan == runner.plan:
                self._queue.remove(pending)
                pending.refuse(error)

    def _tell(self, runner: Runner, event: dict[str, Any]) -> None:
        for pending in self._queue:
            if pending.spec.identity == runner.identity:
                pending.notify(event)

    def _rest(self, runner: Runner) -> None:
        """The runner is idle: end it now, later or never."""
        if runner.is_ending or runner.is_loading:
            return
        if runner.is_leaving or runner.keep_alive_s == 0 or self._is_stopping:
            self._end(runner)
        elif runner.keep_alive_s > 0:
            loop = asyncio.get_running_loop()
            runner.expiry = loop.call_later(runner.keep_alive_s, self._end, runner)

    def _end(self, runner: Runner) -> None:
        if not runner.is_ending:
            runner.end()


async def _all_ended(runners: list[Runner], timeout_s: float) -> None:
    if runners:
        waits = [asyncio.ensure_future(runner.ended.wait()) for runner in runners]
        _, left = await asyncio.wait(waits, timeout=timeout_s)
        for wait in left:
            wait.cancel()
