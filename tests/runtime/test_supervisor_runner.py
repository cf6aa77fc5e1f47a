"""What a runner is told, and what is made of what it tells, over a control channel of our own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.errors import LoadFailed
from runtime.messages import MemoryNeed, ModelSpec
from runtime.options import LoadOptions
from runtime.runner.settings import RunnerSettings
from runtime.supervisor import runner as module
from runtime.supervisor.launch import Launched
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.runner import Runner
from runtime.supervisor.runner_log import RunnerLog
from runtime.supervisor.settings import SupervisorSettings
from runtime.wire import encode_frame

SPEC = ModelSpec("i", "/store/weights", LoadOptions(), MemoryNeed(1, 1, 1), 100, "acme/m:v1", "d", projector="/store/p")
PLAN = LoadPlan(LoadOptions(), context_length=64, parallel=2, size=900, size_vram=300, gpu_layers=7)


def loaded(
    monkeypatch: pytest.MonkeyPatch, *events: dict[str, Any], spec: ModelSpec = SPEC, plan: LoadPlan = PLAN
) -> tuple[Runner, RunnerSettings]:
    """A runner whose process has said `events`, and what it was told. Raises what loading raises."""
    told: list[RunnerSettings] = []

    async def launch(settings: RunnerSettings, **_: object) -> Launched:
        told.append(settings)
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join(map(encode_frame, events)))
        done = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        return Launched(SimpleNamespace(pid=1), reader, None, RunnerLog("m", 1), done)  # type: ignore[arg-type]

    async def scene() -> Runner:
        runner = Runner(spec, plan, Path("/run/r.sock"), 300)
        await runner.load(SupervisorSettings(), lambda _: None)
        return runner

    monkeypatch.setattr(module, "launch", launch)
    return asyncio.run(scene()), told[0]


@pytest.mark.parametrize(("asked", "layers"), [(-1, 7), (0, 0), (3, 3)])
def test_layers_on_the_accelerator_are_as_asked_or_as_planned(
    monkeypatch: pytest.MonkeyPatch, asked: int, layers: int
) -> None:
    _, told = loaded(monkeypatch, {"event": "ready"}, plan=replace(PLAN, options=LoadOptions(num_gpu=asked)))

    assert (told.num_gpu, told.projector, told.parallel, told.context_length) == (layers, "/store/p", 2, 64)


@pytest.mark.parametrize(
    ("facts", "size", "size_vram"),
    [
        ({}, 900, 300),
        ({"is_on_gpu": True}, 900, 300),
        ({"is_on_gpu": False}, 900, 0),
        ({"is_on_gpu": True, "host_bytes": 500, "device_bytes": 250}, 750, 250),
        ({"host_bytes": 500, "device_bytes": 0}, 500, 0),
        ({"host_bytes": -1, "device_bytes": 250}, 900, 300),
        ({"host_bytes": "500", "device_bytes": 250}, 900, 300),
    ],
)
def test_sizes_are_the_measured_ones_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], size: int, size_vram: int
) -> None:
    runner, _ = loaded(monkeypatch, {"event": "ready", **facts})

    shown, counted = runner.loaded(), runner.state().plan
    assert (shown.size, shown.size_vram) == (counted.size, counted.size_vram) == (size, size_vram)
    assert (shown.names, shown.digests) == (("acme/m:v1",), ("d",))


def test_a_model_in_use_does_not_seem_to_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = loaded(monkeypatch, {"event": "ready"})
    runner.used_at -= 1000
    assert runner.loaded().expires_at == pytest.approx(runner.used_at + 300)

    runner.leases = 1

    assert runner.loaded().expires_at == pytest.approx(runner.used_at + 1300, abs=5)


def test_a_long_load_tells_the_log_every_tenth(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1
        return now[0]

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock, time=clock))
    steps = [{"event": "loading", "progress": number / 100} for number in range(100)]

    with caplog.at_level(logging.INFO, "tonnage.supervisor"):
        loaded(monkeypatch, *steps, {"event": "ready"})

    lines = [record.getMessage() for record in caplog.records if "progress=" in record.getMessage()]
    assert 8 <= len(lines) <= 12
    assert lines[0].startswith("loading name=acme/m:v1 progress=10% ")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such file /store/weights", "unable to load model: no such file acme/m:v1"),
        ("bad\x1b[2J\nmagic", "unable to load model: bad [2J magic"),
        ("x" * 5000, "unable to load model: " + "x" * 599 + "…"),
    ],
)
def test_a_failure_is_told_in_one_readable_line(monkeypatch: pytest.MonkeyPatch, said: str, shown: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        loaded(monkeypatch, {"event": "failed", "message": said})

    assert str(failed.value) == shown
