"""All runners of this machine and everyone who waits for one. Carries out what `queue.py` and `policy.py` decide."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed, RuntimeFailure, SupervisorGone
from runtime.messages import Loaded, ModelSpec
from runtime.supervisor.plan import describe, plan_load
from runtime.supervisor.queue import End, Grant, Leave, Limits, Queue, Reject, Rest, Start, Stay, Ticket
from runtime.supervisor.room import Holder
from runtime.supervisor.runner import Runner, files_of
from runtime.supervisor.settings import SupervisorSettings

_numbers = itertools.count(1)  # of the runners of this process
_END_S = 5.0  # a killed process is gone sooner, unless the kernel is in trouble
log = logging.getLogger("tonnage.supervisor")


@dataclass(slots=True, eq=False, kw_only=True)
class Pending(Ticket):
    """A request in line, and the client who waits."""

    spec: ModelSpec
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
        self._queue: Queue[Pending] = Queue(
            Limits(
                max_loaded=settings.loaded_bound,
                max_queue=settings.max_queue,
                budget_bytes=settings.budget_bytes,
                vram_bytes=settings.vram_bytes,
            )
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_stopping = False

    async def lease(
        self,
        spec: ModelSpec,
        keep_alive_s: float | None,
        notify: Callable[[dict[str, Any]], None],
        *,
        caller: str = "",
    ) -> Runner:
        """The runner of `spec`, loaded, with one lease more: give it to `release`. Cancelling leaves the queue.

        Raises QueueFull, ModelTooLarge, LoadFailed, SupervisorGone.
        """
        if self._is_stopping:
            raise SupervisorGone("the server is stopping", retry_after_s=1)
        pending = Pending(
            identity=spec.identity,
            plan=plan_load(spec, self._settings),
            caller=caller,
            spec=spec,
            keep_alive_s=keep_alive_s,
            notify=notify,
            granted=asyncio.get_running_loop().create_future(),
        )
        self._queue.add(pending)
        self._pump()
        while (overflow := self._queue.overflow()) is not None:
            overflow.ticket.refuse(overflow.error)
        if not pending.granted.done():
            notify({"event": "queued"})
        try:
            return await pending.granted
        except asyncio.CancelledError:
            self._abandon(pending)
            raise

    def share(self, identity: str) -> Runner | None:
        """The runner of that model with one lease more, if it is loaded and takes any now: give it to `release`.

        For what is asked of a model without wishes for how, or for how long, it is loaded.
        """
        runner = self._runners.get(identity)
        if runner is None or self._is_stopping or runner.is_loading or runner.is_leaving or runner.is_ending:
            return None
        self._lend(runner)
        return runner

    def release(self, runner: Runner, held_s: float) -> None:
        """Give back one lease; the keep-alive of an idle runner begins."""
        self._queue.saw_lease(held_s)
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
        """End the runner now if it is idle, else after its last lease. False where there is none.

        One that loads answers those who wait for it before: to load it anew for them would help nobody.
        """
        runner = self._runners.get(identity)
        if runner is None:
            return False
        if runner.is_loading:
            runner.keep_alive_s = 0
            for pending in self._queue:
                if pending.identity == identity:
                    pending.keep_alive_s = None  # what they asked for is older
            return True
        runner.is_leaving = True
        self._queue.dismiss(identity)
        if not runner.leases:
            self._end(runner)
            await runner.ended.wait()
        return True

    def holders(self) -> list[Holder]:
        """Who keeps which files: runners, and those in line, whose files are held until they have one."""
        waiting = [Holder(each.identity, files_of(each.spec)) for each in self._queue]
        return [*waiting, *(runner.holder() for runner in self._runners.values())]

    async def end(self, identities: Collection[str]) -> bool:
        """End these runners, for the room that their files take. Whether all of them are gone soon."""
        runners = [runner for identity, runner in self._runners.items() if identity in identities]
        for runner in runners:
            if not runner.is_ending:
                log.info("ending name=%s: its files make room for others", runner.spec.name)
                self._end(runner)
        await _all_ended(runners, _END_S)
        return all(runner.ended.is_set() for runner in runners)

    async def stop(self) -> None:
        """Refuse whoever waits, let running requests finish within the grace, then end every runner."""
        self._is_stopping = True
        for pending in self._queue:
            self._queue.remove(pending)
            pending.refuse(SupervisorGone("the server is stopping", retry_after_s=1))
        runners = list(self._runners.values())
        for runner in runners:
            runner.is_leaving = True
            self._queue.dismiss(runner.identity)
            if not runner.leases:
                self._end(runner)
        await _all_ended(runners, self._settings.grace_s)
        for runner in runners:
            self._end(runner)
        await _all_ended(runners, _END_S)

    def _pump(self) -> None:
        """Move the queue as far as it goes now."""
        self._leave_out_done()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while True:
            now = time.monotonic()
            match self._queue.step([runner.state() for runner in self._runners.values()], now):
                case Grant(pending):
                    pending.granted.set_result(self._grant(self._runners[pending.identity], pending))
                case Reject(pending, error):
                    pending.refuse(error)
                case Start(pending):
                    self._load(pending)
                case End(identities):
                    for identity in identities:
                        self._end(self._runners[identity])
                case Leave(identity):
                    log.info("leaving name=%s: others have waited", self._runners[identity].spec.name)
                    self._runners[identity].is_leaving = True
                case Stay(identity):
                    log.info("staying name=%s: nobody waits for its place", self._runners[identity].spec.name)
                    self._runners[identity].is_leaving = False
                case Rest(until):
                    if until is not None:
                        self._alarm = asyncio.get_running_loop().call_later(until - now, self._pump)
                    return

    def _leave_out_done(self) -> None:
        """Those who gave up, and whose task has not run yet."""
        for pending in self._queue:
            if pending.granted.done():
                self._queue.remove(pending)

    def _grant(self, runner: Runner, pending: Pending) -> Runner:
        if pending.keep_alive_s is not None:
            runner.keep_alive_s = pending.keep_alive_s
        self._lend(runner)
        runner.known_as(pending.spec)
        return runner

    def _lend(self, runner: Runner) -> None:
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None
        runner.leases += 1
        runner.used_at = time.time()

    def _abandon(self, pending: Pending) -> None:
        """The client is gone: undo what it was given, or stop what is done for it alone."""
        if pending in self._queue:
            self._queue.remove(pending)
        elif pending.granted.done() and not pending.granted.cancelled() and pending.granted.exception() is None:
            self.release(pending.granted.result(), 0.0)
        runner = self._runners.get(pending.identity)
        is_wanted = any(other.identity == pending.identity for other in self._queue)
        if runner is not None and runner.is_loading and not is_wanted:
            self._end(runner)
        self._pump()

    def _load(self, pending: Pending) -> None:
        keep_alive_s = self._settings.keep_alive_s if pending.keep_alive_s is None else pending.keep_alive_s
        socket = self._run_dir / f"r{os.getpid()}-{next(_numbers)}.sock"
        runner = Runner(pending.spec, pending.plan, socket, keep_alive_s)
        self._runners[runner.identity] = runner
        log.info("loading name=%s needs=%s", pending.spec.name, describe(pending.plan))
        task = asyncio.get_running_loop().create_task(self._live(runner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, runner: Runner) -> None:
        """The life of one runner, from its start until its process is gone.

        Whatever goes wrong in it, the runner is forgotten: one that seems to load for ever would block all others.
        """
        watcher: asyncio.Task[None] | None = None
        try:
            if await self._load_and_serve(runner):
                watcher = asyncio.get_running_loop().create_task(runner.watch(self._settings.stall_s))
        except Exception:
            log.exception("unexpected error name=%s", runner.spec.name)
            self._end(runner)
            self._refuse(runner, LoadFailed("the model could not be loaded; see the server's log"))
        finally:
            await runner.wait()
            if watcher is not None:
                watcher.cancel()
            self._forget(runner)

    async def _load_and_serve(self, runner: Runner) -> bool:
        """Whether it is loaded; else all who waited for it know why not."""
        started = time.monotonic()
        try:
            await runner.load(self._settings, lambda event: self._tell(runner, event))
        except LoadFailed as error:
            log.warning("load failed name=%s error=%s", runner.spec.name, error)
            runner.end()
            self._refuse(runner, error)
            return False
        seconds = time.monotonic() - started
        self._queue.saw_load(seconds)
        taken = runner.taken
        log.info(
            "loaded name=%s pid=%d seconds=%.2f size=%d size_vram=%d parallel=%d",
            runner.spec.name, runner.pid, seconds, taken.size, taken.size_vram, taken.parallel,
        )  # fmt: skip
        runner.is_loading, runner.used_at = False, time.time()
        self._pump()
        if not runner.leases:
            self._rest(runner)
        return True

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
        for pending in self._queue:
            if pending.identity == runner.identity and pending.plan == runner.plan:
                self._queue.remove(pending)
                pending.refuse(error)

    def _tell(self, runner: Runner, event: dict[str, Any]) -> None:
        for pending in self._queue:
            if pending.identity == runner.identity:
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
