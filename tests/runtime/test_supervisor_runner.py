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


@pytest.mark.parametrize(
    ("more", "facts", "size", "size_vram"),
    [
        ({"uncounted": 70, "uncounted_vram": 30}, (500, 250), 820, 280),
        ({"uncounted": 70}, (500, 0), 570, 0),
        ({"grows": True}, (500, 250), 900, 300),
        ({"grows": True}, (700, 250), 1000, 300),
        ({"grows": True}, (500, 350), 950, 350),
        ({"grows": True}, (900, 900), 1800, 900),
    ],
)
def test_what_a_runner_cannot_count_yet_is_counted_as_planned(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], facts: tuple[int, int], size: int, size_vram: int
) -> None:
    ready = {"event": "ready", "host_bytes": facts[0], "device_bytes": facts[1]}

    runner, _ = loaded(monkeypatch, ready, plan=replace(PLAN, **more))

    assert (runner.taken.size, runner.taken.size_vram) == (size, size_vram)


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
        ("no such file /store/weights", "unable to load model: no such file the weights"),
        ("no such file /store/p", "unable to load model: no such file the projector"),
        ("bad\x1b[2J\nmagic", "unable to load model: bad [2J magic"),
        ("x" * 5000, "unable to load model: " + "x" * 599 + "…"),
    ],
)
def test_a_failure_is_told_in_one_readable_line(monkeypatch: pytest.MonkeyPatch, said: str, shown: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        loaded(monkeypatch, {"event": "failed", "message": said})

    assert str(failed.value) == shown


class Process:
    """A process that lives until it is killed, and says bytes of its own choice."""

    pid = 1

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def kill(self) -> None:
        self.returncode = -9
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        return -9


class Said(asyncio.StreamReader):
    """What a process says; `heard` counts how many times it was read."""

    heard = 0

    async def readexactly(self, n: int) -> bytes:
        Said.heard += 1
        return await super().readexactly(n)


def hear(monkeypatch: pytest.MonkeyPatch, said: bytes, process: Process, within_s: float) -> None:
    """Let a runner load from what is said, for so long. Raises what loading raises."""

    async def launch(*_: object, **__: object) -> Launched:
        reader = Said()
        reader.feed_data(said)
        done = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        return Launched(process, reader, None, RunnerLog("m", 1), done)  # type: ignore[arg-type]

    async def scene() -> None:
        runner = Runner(SPEC, PLAN, Path("/run/r.sock"), 300)
        await asyncio.wait_for(runner.load(SupervisorSettings(), lambda _: None), within_s)

    monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(module, "_LEAVE_S", 0.1)
    monkeypatch.setattr(Said, "heard", 0)
    asyncio.run(scene())


NONSENSE = [
    pytest.param(b"\0\1\0\1" + b"x" * 100, id="a frame that is too large"),
    pytest.param(encode_frame({"event": "loading", "progress": 2}), id="more than all"),
    pytest.param(encode_frame({"event": "loading", "progress": "x"}), id="no number"),
    pytest.param(encode_frame({"event": "dance"}), id="no word of ours"),
]


@pytest.mark.parametrize("said", NONSENSE)
def test_a_runner_that_makes_no_sense_is_ended(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    process = Process()

    with pytest.raises(LoadFailed, match="unable to load model: the model runner was ended: it made no sense"):
        hear(monkeypatch, said, process, within_s=5)

    assert process.returncode == -9


def test_a_runner_that_talks_without_end_is_heard_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = encode_frame({"event": "loading", "progress": 0.5}) * 1000

    with pytest.raises(TimeoutError):
        hear(monkeypatch, flood, Process(), within_s=0.5)

    assert 0 < Said.heard <= 2 * 7  # a head and a body each


def test_details_are_kept_for_each_name_unless_they_are_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = loaded(monkeypatch, {"event": "ready"}, spec=replace(SPEC, details={"family": "a"}))

    runner.known_as(replace(SPEC, name="b", digest="e", details={"family": "b"}))
    runner.known_as(replace(SPEC, name="c", digest="f", details={"family": "x" * 5000}))

    shown = runner.loaded()
    assert shown.names == ("acme/m:v1", "b", "c")
    assert shown.digests == ("d", "e", "f")
    assert (shown.details, shown.named_details) == ({"family": "a"}, ({"family": "a"}, {"family": "b"}, {}))


def test_of_many_names_the_one_that_was_not_asked_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = loaded(monkeypatch, {"event": "ready"})
    for number in range(31):
        runner.known_as(replace(SPEC, name=f"n{number}"))

    runner.known_as(replace(SPEC, name="n0"))
    runner.known_as(replace(SPEC, name="new"))

    assert runner.loaded().names == ("acme/m:v1", *(f"n{number}" for number in range(2, 31)), "n0", "new")
