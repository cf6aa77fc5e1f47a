"""One runner as the supervisor knows it: its process, who uses it, and until when it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed
from runtime.messages import Loaded, ModelSpec
from runtime.runner.settings import RunnerSettings
from runtime.supervisor.launch import Launched, launch
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.policy import RunnerState
from runtime.supervisor.settings import SupervisorSettings
from runtime.wire import FrameInvalid, read_frame

_FOREVER_S = 292 * 365.25 * 86400  # as long as a signed 64-bit count of nanoseconds lasts
_FLASH = {"on": True, "off": False}


@dataclass(eq=False)
class Runner:
    """Made before its process is, so that everyone sees it load. `ended` is set once the process is gone."""

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
    is_on_gpu: bool = False
    expiry: asyncio.TimerHandle | None = None
    _launched: Launched | None = None

    @property
    def identity(self) -> str:
        return self.spec.identity

    @property
    def pid(self) -> int:
        return self._launched.process.pid if self._launched else 0

    def state(self) -> RunnerState:
        """What the policy looks at."""
        return RunnerState(
            identity=self.identity,
            path=self.spec.path,
            plan=self.plan,
            leases=self.leases,
            keep_alive_s=self.keep_alive_s,
            is_loading=self.is_loading,
            is_leaving=self.is_leaving,
            is_ending=self.is_ending,
        )

    def loaded(self) -> Loaded:
        """What /api/ps shows."""
        expires_at = self.used_at + (min(self.keep_alive_s, _FOREVER_S) if self.keep_alive_s >= 0 else _FOREVER_S)
        return Loaded(
            name=self.spec.name,
            digest=self.spec.digest,
            size=self.plan.size,
            size_vram=self.plan.size if self.is_on_gpu else 0,
            context_length=self.plan.context_length,
            expires_at=min(expires_at, time.time() - 1) if self.is_leaving else expires_at,
            details=self.spec.details,
            pid=self.pid,
        )

    async def load(self, settings: SupervisorSettings, on_progress: Callable[[dict[str, Any]], None]) -> None:
        """Start the process and wait until it is ready. Raises LoadFailed; the process may be left to `end`."""
        try:
            self._launched = await launch(self._settings(settings), name=self.spec.name, extra_env=settings.runner_env)
        except OSError as error:
            raise LoadFailed(f"the model runner cannot be started: {error.strerror}") from None
        if self.is_ending:
            self.end()  # told to before there was a process to kill
        timeout_s = settings.load_timeout_s if settings.load_timeout_s > 0 else None
        while True:
            try:
                event = await asyncio.wait_for(read_frame(self._launched.reader), timeout_s)
            except TimeoutError:
                raise LoadFailed("timed out waiting for the model to load") from None
            except (OSError, FrameInvalid):
                event = None
            match event:
                case {"event": "ready", "is_on_gpu": is_on_gpu}:
                    self.is_on_gpu = bool(is_on_gpu)
                    return
                case {"event": "loading", "progress": progress}:
                    on_progress({"event": "loading", "progress": progress})
                case {"event": "failed", "message": message}:
                    raise LoadFailed(f"unable to load model: {message}")
                case _:
                    raise LoadFailed(f"unable to load model: {await self._describe_end()}")

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
        assert self._launched is not None
        code = await self._launched.process.wait()
        if code < 0:
            return f"the model runner was ended by {signal.Signals(-code).name}"
        return f"the model runner ended with status {code}"

    def _settings(self, settings: SupervisorSettings) -> RunnerSettings:
        options = self.spec.options
        return RunnerSettings(
            path=self.spec.path,
            socket=str(self.socket),
            context_length=self.plan.context_length,
            parallel=self.plan.parallel,
            num_batch=options.num_batch,
            num_gpu=options.num_gpu,
            main_gpu=options.main_gpu,
            use_mmap=options.use_mmap,
            num_thread=options.num_thread,
            kv_cache_type=settings.kv_cache_type,
            flash_attention=_FLASH.get(settings.flash_attention),
            is_embedding=self.spec.is_embedding,
            parent_pid=os.getpid(),
        )
