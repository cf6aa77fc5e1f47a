"""Turns of the event loop that come together only by chance, brought together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runtime.errors import LoadFailed
from runtime.messages import MemoryNeed, ModelSpec
from runtime.options import LoadOptions
from runtime.supervisor.fleet import Fleet
from runtime.supervisor.runner import Runner
from runtime.supervisor.settings import SupervisorSettings


def spec(name: str) -> ModelSpec:
    return ModelSpec(name, "/nowhere", LoadOptions(), MemoryNeed(1, 1, 1), 100, name, "0" * 64)


@pytest.mark.parametrize("error", [LoadFailed("no such file"), RuntimeError("a bug")])
def test_a_load_that_fails_as_a_client_hangs_up_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def scene() -> None:
        fails = asyncio.Event()

        async def load(_runner: Runner, *_: object) -> None:
            await fails.wait()
            raise error

        monkeypatch.setattr(Runner, "load", load)
        fleet = Fleet(SupervisorSettings(num_parallel=1, memory_budget_bytes=2**30), tmp_path)
        leaves = asyncio.ensure_future(fleet.lease(spec("a"), None, lambda _: None))
        stays = asyncio.ensure_future(fleet.lease(spec("a"), None, lambda _: None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        fails.set()
        leaves.cancel()

        with pytest.raises(LoadFailed):
            await asyncio.wait_for(stays, 5)
        with pytest.raises(LoadFailed):
            await asyncio.wait_for(fleet.lease(spec("b"), None, lambda _: None), 5)
        assert fleet.ps() == []

    asyncio.run(scene())
