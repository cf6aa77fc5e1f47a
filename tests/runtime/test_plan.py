"""How a model is to be loaded: lanes, context, layers on accelerators. Numbers in, numbers out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import MemoryNeed, ModelSpec
from runtime.options import LoadOptions
from runtime.runner import vision
from runtime.runner.devices import devices
from runtime.runner.threads import compute_threads
from runtime.supervisor import devices as found
from runtime.supervisor import plan as planning
from runtime.supervisor.plan import describe, is_compatible, plan_load
from runtime.supervisor.settings import Device, SupervisorSettings

MIB, GIB = 2**20, 2**30
LAYERS = 10


def need(*, layer: int = 100 * MIB, kv: int = 1024, **more: Any) -> MemoryNeed:
    """Ten layers, a table of as much as one, an output of as much as one."""
    rows = tuple((layer, 0, kv, 0, 0) for _ in range(LAYERS))
    return MemoryNeed(layer * (LAYERS + 2), kv * LAYERS, 0, layers=rows, output_bytes=layer, **more)


def spec(memory: MemoryNeed | None = None, *, trained: int = 32_768, **more: Any) -> ModelSpec:
    options = more.pop("options", LoadOptions())
    return ModelSpec("i", "/p", options, memory or need(), trained, "n", "d", **more)


def settings(*free: int, **more: Any) -> SupervisorSettings:
    devices = tuple(Device(f"GPU{number}", size, size) for number, size in enumerate(free))
    return SupervisorSettings(**{"memory_budget_bytes": 64 * GIB, "devices": devices, **more})


def test_without_accelerators_all_is_on_the_host() -> None:
    plan = plan_load(spec(), settings())

    assert (plan.size_vram, plan.gpu_layers) == (0, 0)
    assert plan.size == plan.parts.total >= 1200 * MIB


def test_what_fits_goes_to_the_accelerator_with_the_output() -> None:
    plan = plan_load(spec(), settings(24 * GIB))

    assert plan.gpu_layers == LAYERS + 1
    assert plan.size_vram > 1100 * MIB
    assert 100 * MIB <= plan.size - plan.size_vram < 200 * MIB  # the table of embeddings stays


def test_of_what_does_not_fit_some_layers_go() -> None:
    plan = plan_load(spec(need(kv=0)), settings(512 * MIB + 450 * MIB, num_parallel=1))

    assert plan.gpu_layers == 4
    assert plan.size_vram == 400 * MIB
    assert plan.size >= 1200 * MIB


def test_the_reserve_of_a_device_is_not_used() -> None:
    assert plan_load(spec(), settings(512 * MIB)).gpu_layers == 0


def test_the_memory_of_all_devices_counts() -> None:
    assert settings(8 * GIB, 4 * GIB).vram_bytes == 12 * GIB
    assert plan_load(spec(need(layer=GIB)), settings(8 * GIB, 8 * GIB)).gpu_layers == LAYERS + 1


@pytest.mark.parametrize(("asked", "layers", "vram"), [(0, 0, 0), (3, 3, 300 * MIB), (99, 99, 1100 * MIB)])
def test_a_number_of_layers_is_taken_as_given(asked: int, layers: int, vram: int) -> None:
    plan = plan_load(spec(need(kv=0), options=LoadOptions(num_gpu=asked)), settings(24 * GIB))

    assert (plan.gpu_layers, plan.size_vram) == (layers, vram)


@pytest.mark.parametrize(("asked", "context"), [(0, 4096), (512, 2048), (2048, 2048), (8192, 8192)])
def test_a_model_that_sees_has_room_for_a_picture(asked: int, context: int) -> None:
    wanted = spec(projector="/projector", options=LoadOptions(num_ctx=asked))

    assert plan_load(wanted, settings()).context_length == context


def test_no_picture_makes_a_context_longer_than_was_trained() -> None:
    wanted = spec(trained=1024, projector="/projector", options=LoadOptions(num_ctx=512))

    assert plan_load(wanted, settings()).context_length == 1024


@pytest.mark.parametrize(("budget", "lanes"), [(64 * GIB, 8), (12 * GIB, 8), (7 * GIB, 4), (5 * GIB, 2), (3 * GIB, 1)])
def test_lanes_are_halved_until_two_such_models_fit(budget: int, lanes: int) -> None:
    memory = need(kv=12 * 1024, layer=100 * MIB)  # 480 MiB a lane of 4096 tokens

    assert plan_load(spec(memory), settings(memory_budget_bytes=budget)).parallel == lanes


def test_a_smaller_cache_makes_room_for_more_lanes() -> None:
    memory = need(kv=12 * 1024)

    assert plan_load(spec(memory), settings(memory_budget_bytes=7 * GIB, kv_cache_type="q8_0")).parallel == 8


def test_models_that_embed_have_one_lane() -> None:
    assert plan_load(spec(is_embedding=True), settings(num_parallel=16)).parallel == 1


def test_the_operators_word_on_lanes_counts() -> None:
    assert plan_load(spec(), settings(memory_budget_bytes=GIB, num_parallel=16)).parallel == 16


def test_a_plan_tells_its_figures_in_one_line() -> None:
    plan = plan_load(spec(need(layer=GIB)), settings(num_parallel=2))

    assert describe(plan) == (
        "12.1 GiB: weights 12.0 GiB, cache 0.1 GiB, buffers 0.0 GiB, reserve 0.0 GiB, for 2 x 4096 tokens"
    )


# what a model of 135 million parameters says of itself, and one of 8 billion
SMALL = MemoryNeed(
    270 * MIB, 23_040, 16_384, vocabulary=49_152, embedding=576, heads=9, feed_width=6336, attention_width=2688
)
LARGE = MemoryNeed(
    4700 * MIB, 131_072, 16_384, vocabulary=128_256, embedding=4096, heads=32, feed_width=55_296, attention_width=18_432
)


@pytest.mark.parametrize(
    ("memory", "budget", "reserve"),
    [(SMALL, 16 * GIB, 297), (SMALL, 64 * GIB, 297), (LARGE, 25 * GIB, 1220), (LARGE, 64 * GIB, 1220)],
)
def test_a_model_that_generates_has_room_to_embed_and_keeps_its_lanes(
    memory: MemoryNeed, budget: int, reserve: int
) -> None:
    plan = plan_load(spec(memory), settings(memory_budget_bytes=budget))

    assert plan.parallel == 8
    assert plan.parts.reserve / MIB == pytest.approx(reserve, rel=0.05)
    assert plan.uncounted == plan.parts.reserve
    assert plan.size == plan.parts.total <= budget // 2


@pytest.mark.parametrize("budget", [GIB, 5 * GIB, 6 * GIB, 18 * GIB + 512 * MIB, 20 * GIB])
def test_room_to_embed_refuses_nothing_and_leaves_a_second_model_its_half(budget: int) -> None:
    plan = plan_load(spec(LARGE), settings(memory_budget_bytes=budget))
    least = plan.size - plan.parts.reserve

    assert plan.size <= (budget // 2 if least <= budget // 2 else max(budget, least))


def test_room_to_embed_is_where_the_model_is() -> None:
    plan = plan_load(spec(need(kv=64 * 1024)), settings(24 * GIB, num_parallel=1))

    assert plan.parts.reserve == plan.uncounted == plan.uncounted_vram > 4096 * 64 * 1024 * LAYERS
    assert plan.size_vram <= 24 * GIB


def test_a_model_that_only_embeds_is_planned_at_its_largest() -> None:
    plan = plan_load(spec(SMALL, is_embedding=True), settings())

    assert plan.grows
    assert (plan.parts.reserve, plan.uncounted) == (0, 0)


@pytest.mark.parametrize(
    ("free", "asked", "on_device"), [((), -1, 0), ((24 * GIB,), -1, 700), ((24 * GIB,), 0, 0), ((GIB,), 1, 700)]
)
def test_a_projector_goes_with_the_first_layer(free: tuple[int, ...], asked: int, on_device: int) -> None:
    options = LoadOptions(num_gpu=asked)
    with_eyes = spec(need(kv=0, projector_bytes=700 * MIB), options=options, projector="/projector")
    blind = plan_load(spec(need(kv=0), options=options), settings(*free))

    plan = plan_load(with_eyes, settings(*free))

    assert plan.size_vram - blind.size_vram == plan.uncounted_vram == on_device * MIB
    assert plan.parts.reserve == 256 * MIB  # of images that were encoded
    assert plan.size - blind.size == plan.uncounted == (700 + 256) * MIB


def test_as_many_encoded_images_are_kept_as_the_plan_has_room_for() -> None:
    assert planning._ENCODED_BYTES == vision._KEPT_BYTES


@pytest.mark.parametrize(
    ("asked", "more", "free", "tokens"),
    [
        (0, {}, (), 0),
        (1, {}, (), 64),
        (128, {}, (), 128),
        (2**31 - 1, {}, (), 512),
        (2**31 - 1, {"num_ctx": 256}, (), 256),
        (2**31 - 1, {"num_ctx": 16}, (), 64),
        (2**31 - 1, {}, (24 * GIB,), 2048),
        (2**31 - 1, {"num_gpu": 0}, (24 * GIB,), 512),
        (1, {}, (24 * GIB,), 64),
    ],
)
@pytest.mark.parametrize("embeds", [False, True])
def test_nobody_makes_the_steps_of_others_huge_or_tiny(
    asked: int, more: dict[str, int], free: tuple[int, ...], tokens: int, embeds: bool
) -> None:
    wanted = spec(options=LoadOptions(num_batch=asked, **more), is_embedding=embeds)

    assert plan_load(wanted, settings(*free)).options.num_batch == tokens


def test_nobody_takes_more_threads_than_the_server_would() -> None:
    wanted = spec(options=LoadOptions(num_thread=10**6))

    assert plan_load(wanted, settings()).options.num_thread == compute_threads()


def test_what_is_negative_is_left_open_and_forces_no_reload() -> None:
    negative = LoadOptions(num_ctx=-1, num_batch=-1, num_gpu=-7, main_gpu=-1, num_thread=-2)

    usual, odd = plan_load(spec(), settings()), plan_load(spec(options=negative), settings())

    assert (odd.options.num_batch, odd.options.num_gpu) == (0, -1)
    assert is_compatible(usual, odd)
    assert is_compatible(odd, usual)


def test_an_automatic_choice_of_layers_matches_one_that_was_asked_for() -> None:
    loaded = plan_load(spec(options=LoadOptions(num_gpu=5)), settings(24 * GIB))

    assert is_compatible(loaded, plan_load(spec(), settings(24 * GIB)))
    assert not is_compatible(loaded, plan_load(spec(options=LoadOptions(num_gpu=6)), settings(24 * GIB)))


@given(
    layer=st.integers(1, 4 * GIB), kv=st.integers(0, 2**20), context=st.integers(0, 2**17),
    free=st.lists(st.integers(0, 80 * GIB), max_size=3), asked=st.integers(-1, 20), lanes=st.integers(0, 9),
    budget=st.integers(1, 2**38), embeds=st.booleans(),
)  # fmt: skip
def test_figures_always_add_up(
    layer: int, kv: int, context: int, free: list[int], asked: int, lanes: int, budget: int, embeds: bool
) -> None:
    wanted = spec(
        need(layer=layer, kv=kv), options=LoadOptions(num_ctx=context, num_gpu=asked), is_embedding=embeds
    )  # fmt: skip

    plan = plan_load(wanted, settings(*free, num_parallel=lanes, memory_budget_bytes=budget))

    assert 0 <= plan.size_vram <= plan.size
    assert plan.size >= wanted.memory.weights_bytes
    assert 1 <= plan.parallel <= max(lanes, 8)
    assert asked >= 0 or plan.size_vram <= sum(free)
    assert plan.gpu_layers == asked or asked == -1


def test_settings_with_devices_survive_the_wire() -> None:
    told = settings(GIB)

    assert SupervisorSettings.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_a_build_for_the_processor_has_no_devices_and_none_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "_ANSWER_S", 0.0)  # a process would be given up at once, with a warning

    assert devices() == []
    assert found.discover({}) == ()


ANSWERS = {
    "two devices": ('print(\'[{"name": "GPU0", "total_bytes": 2, "free_bytes": 1}]\')', (Device("GPU0", 2, 1),)),
    "no JSON": ("print('hello')", ()),
    "another shape": ("print('{\"name\": 1}')", ()),
    "a crash": ("import os; os.abort()", ()),
    "a hang": ("import time; time.sleep(60)", ()),
}


@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_whatever_goes_wrong_means_no_devices(
    body: str, expected: tuple[Device, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "runtime" / "runner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()  # or the installed package of this name would be found before it
    (package / "devices.py").write_text(body, encoding="utf-8")
    monkeypatch.setattr(found, "_PACKAGES", tmp_path)
    monkeypatch.setattr(found, "_ANSWER_S", 1.0 if "sleep" in body else 60.0)

    assert found.discover({"LLAMA_CPP_LIB_PATH": "/elsewhere"}) == expected
