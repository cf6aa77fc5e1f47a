"""One runner as the supervisor knows it: its process, who uses it, and until when it stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed
from runtime.messages import Loaded, ModelSpec
from runtime.process import how_ended
from runtime.runner.settings import RunnerSettings
from runtime.supervisor.launch import Launched, launch
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.policy import RunnerState
from runtime.supervisor.room import Holder
from runtime.supervisor.runner_log import readable
from runtime.supervisor.settings import SupervisorSettings
from runtime.wire import FrameInvalid, read_frame

_FOREVER_S = 292 * 365.25 * 86400  # as long as a signed 64-bit count of nanoseconds lasts
_FLASH = {"on": True, "off": False}
_MOST_NAMES = 32
_MOST_DETAILS_BYTES = 4096  # of JSON, beside each name: what a stranger's config says
_LONGEST_MESSAGE = 600
_MOST_FRAME_BYTES = 64 * 1024  # what a runner says of itself is short
_PAUSE_S = 0.1  # a runner that floods us is heard so often
_LEAVE_S = 5.0  # for a process that talks to us no more, to end by itself
_TOLD_EVERY_S, _TOLD_EVERY = 5.0, 0.1  # how often a load tells the log how far it is: seconds, share
log = logging.getLogger("tonnage.supervisor")


@dataclass(eq=False)
class Runner:
    """Made before its process is, so that everyone sees it load. `ended` is set once the process is gone.

    names: what it was asked by, the one that loaded it first, each with the digest of its manifest and its details.
    """

    spec: ModelSpec
    plan: LoadPlan
    socket: Path
    keep_alive_s: float
    leases: int = 0
    is_loading: bool = True
    is_leaving: bool = False
    is_ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    end_message: str = "the model runner has ended"
    used_at: float = field(default_factory=time.time)
    names: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    expiry: asyncio.TimerHandle | None = None
    _taken: LoadPlan | None = None
    _launched: Launched | None = None
    _why: str = ""

    def __post_init__(self) -> None:
        self.known_as(self.spec)

    @property
    def identity(self) -> str:
        return self.spec.identity

    @property
    def pid(self) -> int:
        return self._launched.process.pid if self._launched else 0

    @property
    def taken(self) -> LoadPlan:
        """The plan, with the bytes that the loaded runner was found to take."""
        return self._taken or self.plan

    def known_as(self, spec: ModelSpec) -> None:
        """Remember a name it is asked by: the first one and the latest, since anybody may have as many as he likes."""
        is_short = len(json.dumps(spec.details)) <= _MOST_DETAILS_BYTES
        known = (spec.digest, spec.details if is_short else {})
        if spec.name == self.spec.name:
            self.names[spec.name] = known
            return
        self.names.pop(spec.name, None)
        self.names[spec.name] = known
        if len(self.names) > _MOST_NAMES:
            _, oldest, *_ = self.names
            del self.names[oldest]

    def state(self) -> RunnerState:
        """What the policy looks at."""
        return RunnerState(
            identity=self.identity,
            path=self.spec.path,
            plan=self.taken,
            leases=self.leases,
            keep_alive_s=self.keep_alive_s,
            is_loading=self.is_loading,
            is_leaving=self.is_leaving,
            is_ending=self.is_ending,
            used_at=self.used_at,
        )

    def holder(self) -> Holder:
        """What those look at who need room for other files."""
        is_idle = not (self.leases or self.is_loading or self.is_ending)
        return Holder(self.identity, files_of(self.spec), self.used_at if is_idle else None, self.is_ending)

    def loaded(self) -> Loaded:
        """What /api/ps shows."""
        now = time.time()
        keep_alive_s = min(self.keep_alive_s, _FOREVER_S) if self.keep_alive_s >= 0 else _FOREVER_S
        expires_at = (now if self.leases else self.used_at) + keep_alive_s  # in use it does not expire
        return Loaded(
            name=self.spec.name,
            digest=self.spec.digest,
            size=self.taken.size,
            size_vram=self.taken.size_vram,
            context_length=self.plan.context_length,
            expires_at=min(expires_at, now - 1) if self.is_leaving else expires_at,
            details=self.names[self.spec.name][1],
            pid=self.pid,
            names=tuple(self.names),
            digests=tuple(digest for digest, _ in self.names.values()),
            named_details=tuple(details for _, details in self.names.values()),
        )

    async def load(self, settings: SupervisorSettings, on_progress: Callable[[dict[str, Any]], None]) -> None:
        """Start the process and wait until it is ready. Raises LoadFailed; the process may be left to `end`."""
        try:
            self._launched = await launch(self._settings(settings), name=self.spec.name, extra_env=settings.runner_env)
        except OSError as error:
            raise LoadFailed(f"the model runner cannot be started: {error.strerror}") from None
        if self.is_ending:
            self.end()  # told to before there was a process to kill
        progress_log = _ProgressLog(self.spec.name)
        timeout_s = settings.load_timeout_s if settings.load_timeout_s > 0 else None
        while True:
            heard_at = time.monotonic()
            try:
                event = await asyncio.wait_for(self._hear(), timeout_s)
            except TimeoutError:
                raise LoadFailed("timed out waiting for the model to load") from None
            match event:
                case {"event": "ready", **ready}:
                    self._taken = _measured(self.plan, ready)
                    return
                case {"event": "loading", "progress": float() | int() as progress} if 0 <= progress <= 1:
                    progress_log(progress)
                    on_progress({"event": "loading", "progress": progress})
                    await asyncio.sleep(max(heard_at + _PAUSE_S - time.monotonic(), 0))
                case {"event": "failed", "message": message}:
                    raise LoadFailed(f"unable to load model: {self._publishable(str(message))}")
                case _:
                    await self._await_end()
                    raise LoadFailed(f"unable to load model: {await self._describe_end()}")

    async def watch(self, stall_s: float) -> None:
        """Kill the loaded runner once it is at work and silent for `stall_s` seconds; 0 or less is never."""
        assert self._launched is not None
        is_busy = False
        while True:
            try:
                event = await asyncio.wait_for(self._hear(), stall_s if is_busy and stall_s > 0 else None)
            except TimeoutError:
                self._why = f"the model runner was ended: it computed nothing for {stall_s:g} s"
                log.error("runner hangs name=%s pid=%d seconds=%g", self.spec.name, self.pid, stall_s)
                self.end()
                return
            if event is None:
                await self._await_end()
                return
            is_busy = event.get("event") == "beat" and event.get("busy") is True
            await asyncio.sleep(_PAUSE_S)

    async def _hear(self) -> dict[str, Any] | None:
        """What the process says next; None where it says no more, or nothing that makes sense."""
        assert self._launched is not None
        try:
            return await read_frame(self._launched.reader, max_bytes=_MOST_FRAME_BYTES)
        except (OSError, FrameInvalid):
            return None

    async def _await_end(self) -> None:
        """Let the process end by itself, as one does that says no more; else it is made to."""
        assert self._launched is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._launched.process.wait(), _LEAVE_S)
            return
        self._why = "the model runner was ended: it made no sense"
        self.end()

    async def wait(self) -> None:
        """Wait for the end of the process and of its log; then `end_message` says how it ended."""
        if self._launched is None:
            return
        self.end_message = await self._describe_end()
        self._launched.writer.close()
        await self._launched.logging

    def end(self) -> None:
        """Kill the process: it has nothing to save. `wait` returns soon after."""
        self.is_ending = True
        if self._launched is not None and self._launched.process.returncode is None:
            self._launched.process.kill()

    async def _describe_end(self) -> str:
        """How it ended; where nobody told it to, with its last words: llama.cpp says why it aborts."""
        assert self._launched is not None
        code = await self._launched.process.wait()
        if self._why:
            return self._why
        how = how_ended(code)
        if self.is_ending or code in (0, -signal.SIGKILL):
            return f"the model runner {how}"
        with contextlib.suppress(TimeoutError):  # what it wrote last may still be in the pipe
            await asyncio.wait_for(asyncio.shield(self._launched.logging), 1.0)
        last = self._publishable(self._launched.log.last)
        self._why = f"the model runner {how}: {last}" if last else f"the model runner {how}"
        return self._why

    def _publishable(self, words: str) -> str:
        """llama.cpp's own words, of one line, without the places of files.

        Nor with a name: they go to all who use the weights, and what one of them calls his copy is his own affair.
        """
        named = dict.fromkeys((self.spec.path, *self.spec.more_paths), "the weights")
        named |= dict.fromkeys(self.spec.adapters, "the adapter") | {self.spec.projector: "the projector"}
        for path, name in named.items():
            words = words.replace(path, name) if path else words
        return readable(words, _LONGEST_MESSAGE)

    def _settings(self, settings: SupervisorSettings) -> RunnerSettings:
        options = self.plan.options  # within bounds, as the request's own need not be
        return RunnerSettings(
            path=self.spec.path,
            socket=str(self.socket),
            context_length=self.plan.context_length,
            parallel=self.plan.parallel,
            num_batch=options.num_batch,
            num_gpu=options.num_gpu if options.num_gpu >= 0 else self.plan.gpu_layers,
            main_gpu=options.main_gpu,
            use_mmap=options.use_mmap,
            num_thread=options.num_thread,
            kv_cache_type=settings.kv_cache_type,
            flash_attention=_FLASH.get(settings.flash_attention),
            is_embedding=self.spec.is_embedding,
            projector=self.spec.projector,
            vocabulary_only=bool(self.spec.vocabulary_of),
            parent_pid=os.getpid(),
            more_paths=self.spec.more_paths,
            adapters=self.spec.adapters,
            offset=self.spec.offset,
        )


class _ProgressLog:
    """How far a load is, in the log: every tenth of it, or after some seconds; a quick one says nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = self._told_at = time.monotonic()
        self._told = 0.0

    def __call__(self, progress: float) -> None:
        now = time.monotonic()
        if now - self._told_at < _TOLD_EVERY_S and (progress - self._told < _TOLD_EVERY or now - self._started < 1):
            return
        self._told_at, self._told = now, progress
        log.info("loading name=%s progress=%.0f%% seconds=%.1f", self._name, progress * 100, now - self._started)


def _measured(plan: LoadPlan, ready: Mapping[Any, Any]) -> LoadPlan:
    """The plan with the bytes that the runner counted, where it did, and with those that it cannot count yet."""
    match ready:
        case {"host_bytes": int(host), "device_bytes": int(device)} if host >= 0 and device >= 0:
            host += plan.uncounted - plan.uncounted_vram
            device += plan.uncounted_vram
            if plan.grows:
                host, device = max(host, plan.size - plan.size_vram), max(device, plan.size_vram)
            return replace(plan, size=host + device, size_vram=device)
        case {"is_on_gpu": False}:
            return replace(plan, size_vram=0)
    return plan


def files_of(spec: ModelSpec) -> dict[str, int]:
    """The files that a runner of that maps, with their sizes in bytes."""
    paths = [path for path in (spec.path, *spec.more_paths, *spec.adapters, spec.projector) if path]
    return {path: _size(path) for path in paths}


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
