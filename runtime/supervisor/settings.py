"""What the supervisor is told, once, by the process that starts it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.messages import Message

_SHARE_OF_MEMORY = 0.8
_MOST_LOADED = 3
_MOST_VOCABULARIES = 4
_SHARE_OF_VOCABULARIES, _LEAST_FOR_VOCABULARIES = 16, 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Device(Message):
    """An accelerator: its memory, and what was free of it when the supervisor started."""

    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class SupervisorSettings(Message):
    """How many models are loaded, for how long, and how large.

    keep_alive_s: for models that do not say; negative is forever. load_timeout_s: without progress; 0 or less is none.
    max_loaded, num_parallel, memory_budget_bytes: 0 leaves the choice to the supervisor. flash_attention: "auto", "on"
    or "off". grace_s: for running streams when it is stopped. parent: the process whose end is also ours; 0 is none.
    runner_env: what llama.cpp needs of the environment, such as the visible devices. devices: accelerators, found out
    when the supervisor starts. stall_s: a runner that is at work and ends no step for so long is killed; 0 or less
    never. One step may take minutes where a large model reads a long input whole on a CPU.
    """

    keep_alive_s: float = 300.0
    max_loaded: int = 0
    max_queue: int = 512
    num_parallel: int = 0
    load_timeout_s: float = 300.0
    memory_budget_bytes: int = 0
    context_length: int = 4096
    kv_cache_type: str = "f16"
    flash_attention: str = "auto"
    grace_s: float = 10.0
    parent: int = 0
    runner_env: dict[str, str] = field(default_factory=dict)
    stall_s: float = 900.0
    devices: tuple[Device, ...] = ()

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> SupervisorSettings:
        devices = tuple(map(Device.from_json, body.get("devices", ())))
        return super(SupervisorSettings, cls).from_json({**body, "devices": devices})

    @property
    def loaded_bound(self) -> int:
        """How many models may be loaded at once."""
        return self.max_loaded if self.max_loaded > 0 else _MOST_LOADED

    @property
    def budget_bytes(self) -> int:
        """The budget as set, or most of the machine's memory."""
        if self.memory_budget_bytes > 0:
            return self.memory_budget_bytes
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _SHARE_OF_MEMORY)

    def for_vocabularies(self) -> SupervisorSettings:
        """Of those whose weights are not loaded: they take no model's place, and little memory, beside the budget."""
        budget = max(self.budget_bytes // _SHARE_OF_VOCABULARIES, _LEAST_FOR_VOCABULARIES)
        return replace(self, max_loaded=_MOST_VOCABULARIES, memory_budget_bytes=budget, devices=())

    @property
    def vram_bytes(self) -> int:
        """Memory of accelerators that was free at the start."""
        return sum(device.free_bytes for device in self.devices)
