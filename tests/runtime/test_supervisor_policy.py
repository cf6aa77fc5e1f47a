"""What is loaded, what goes, who waits: rules without processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import MemoryNeed, ModelSpec
from runtime.options import LoadOptions
from runtime.supervisor.plan import LoadPlan, is_compatible, plan_load
from runtime.supervisor.policy import Evict, Load, Refuse, RunnerState, Share, Wait, decide, may_share
from runtime.supervisor.settings import SupervisorSettings

MIB = 2**20


def plan(size: int = 10, **options: Any) -> LoadPlan:
    return LoadPlan(LoadOptions(**options), context_length=4096, parallel=1, size=size)


def runner(identity: str, *, size: int = 10, leases: int = 0, keep: float = 300, **state: Any) -> RunnerState:
    return RunnerState(identity, f"/{identity}", state.pop("plan", plan(size)), leases, keep, **state)


class _Refused:
    """Equal to any refusal: errors have no equality of their own."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refuse)

    __hash__ = None  # type: ignore[assignment]


OTHER, REFUSED = plan(num_thread=3), _Refused()
DECISIONS = [
    pytest.param([], plan(), Load(), id="nothing is loaded"),
    pytest.param([runner("m")], plan(), Share(), id="it is loaded"),
    pytest.param([runner("m", leases=5)], plan(), Share(), id="it is loaded and busy"),
    pytest.param([runner("m", is_loading=True)], plan(), Wait(), id="it loads already"),
    pytest.param([runner("m", is_ending=True)], plan(), Wait(), id="it is about to be gone"),
    pytest.param([runner("m")], OTHER, Evict(("m",)), id="loaded in another way, idle"),
    pytest.param([runner("m", leases=1)], OTHER, Wait("m"), id="loaded in another way, busy"),
    pytest.param([runner("m", leases=1, is_leaving=True)], plan(), Wait("m"), id="unloaded while busy"),
    pytest.param([runner("a", is_loading=True)], plan(), Wait(), id="one load at a time"),
    pytest.param([runner("a", is_ending=True)], plan(), Wait(), id="memory is not free before the end"),
    pytest.param([runner("a"), runner("b")], plan(), Load(), id="room for one more"),
    pytest.param([runner("a"), runner("b"), runner("c")], plan(), Evict(("a",)), id="as many as may be, by path"),
    pytest.param(
        [runner("a"), runner("b", keep=5), runner("c")], plan(), Evict(("b",)), id="shortest keep-alive first"
    ),
    pytest.param(
        [runner("a", used_at=2), runner("b", used_at=1, keep=900), runner("c", used_at=3)],
        plan(),
        Evict(("b",)),
        id="the least recently used first, however long it was to stay",
    ),
    pytest.param(
        [runner("a", used_at=1, keep=-1), runner("b", used_at=2), runner("c", used_at=3)],
        plan(),
        Evict(("a",)),
        id="what is to stay for ever goes like the others",
    ),
    pytest.param(
        [runner("a", size=20, used_at=1), runner("b", size=60, used_at=2)],
        plan(75),
        Evict(("b",)),
        id="nothing goes in vain",
    ),
    pytest.param([runner("m")], plan(101, num_thread=3), REFUSED, id="reloaded larger than all there is"),
    pytest.param(
        [runner("a", keep=-1), runner("b"), runner("c")],
        plan(),
        Evict(("b",)),
        id="endless keep-alive last, all else alike",
    ),
    pytest.param([runner("a", leases=1), runner("b"), runner("c")], plan(), Evict(("b",)), id="never a busy one"),
    pytest.param([runner("a", size=60), runner("b", size=30)], plan(35), Evict(("a",)), id="as few as make room"),
    pytest.param([runner("a", size=40), runner("b", size=40)], plan(90), Evict(("a", "b")), id="as many as make room"),
    pytest.param(
        [runner("a", size=60, leases=1), runner("b", size=40, leases=1, keep=5)], plan(50), Wait("b"), id="all are busy"
    ),
    pytest.param(
        [runner("a", size=60, leases=1, is_leaving=True), runner("b", size=40, leases=1)],
        plan(50),
        Wait(),
        id="one goes",
    ),
    pytest.param([runner("a", size=90, leases=1), runner("b")], plan(50), Wait("a"), id="idle ones are not enough"),
]


@pytest.mark.parametrize(("runners", "wanted", "decision"), DECISIONS)
def test_decisions(runners: list[RunnerState], wanted: LoadPlan, decision: object) -> None:
    assert decide("m", wanted, runners, max_loaded=3, budget_bytes=100) == decision


def test_what_can_never_fit_is_refused_with_figures() -> None:
    decision = decide("m", plan(3 * 2**30), [runner("a")], max_loaded=3, budget_bytes=2**30)

    assert isinstance(decision, Refuse)
    assert str(decision.error) == "model requires more memory (3.0 GiB) than the budget allows (1.0 GiB)"


def on_gpu(size: int, vram: int) -> LoadPlan:
    return replace(plan(size), size_vram=vram)


@pytest.mark.parametrize(
    ("taken", "wanted", "decision"),
    [
        (on_gpu(80, 80), plan(90), Load()),
        (on_gpu(90, 30), on_gpu(90, 50), Evict(("a",))),
        (on_gpu(60, 40), on_gpu(60, 41), Evict(("a",))),
        (on_gpu(60, 40), on_gpu(60, 40), Load()),
    ],
)
def test_memory_of_the_machine_and_of_accelerators_are_counted_apart(
    taken: LoadPlan, wanted: LoadPlan, decision: object
) -> None:
    loaded = [runner("a", plan=taken)]

    assert decide("m", wanted, loaded, max_loaded=3, budget_bytes=90, vram_bytes=80) == decision


def test_what_no_accelerator_holds_is_refused_with_figures() -> None:
    decision = decide("m", on_gpu(3 * 2**30, 2 * 2**30), [], max_loaded=3, budget_bytes=2**30, vram_bytes=2**30)

    assert isinstance(decision, Refuse)
    assert str(decision.error) == "model requires more accelerator memory (2.0 GiB) than there is (1.0 GiB)"


states = st.builds(
    lambda number, size, leases, keep, leaving: runner(
        f"r{number}", size=size, leases=leases, keep=keep, is_leaving=leaving
    ),
    st.integers(0, 9), st.integers(1, 100), st.integers(0, 2), st.sampled_from([-1.0, 0.0, 5.0, 300.0]), st.booleans(),
)  # fmt: skip


@given(runners=st.lists(states, max_size=5, unique_by=lambda one: one.identity), size=st.integers(1, 150))
def test_the_budget_and_busy_runners_are_sacred(runners: list[RunnerState], size: int) -> None:
    decision = decide("m", plan(size), runners, max_loaded=3, budget_bytes=100)

    match decision:
        case Load():
            assert sum(one.plan.size for one in runners) + size <= 100
            assert len(runners) < 3
        case Evict(identities):
            gone = [one for one in runners if one.identity in identities]
            assert gone and not any(one.leases for one in gone)
        case Refuse():
            assert size > 100
        case Wait(leaving):
            assert any(one.leases for one in runners)
            assert leaving is not None or any(one.is_leaving for one in runners)


@pytest.mark.parametrize(
    ("state", "shares"),
    [({}, True), ({"leases": 9}, True), ({"is_loading": True}, False), ({"is_leaving": True}, False),
     ({"is_ending": True}, False), ({"plan": OTHER}, False)],
)  # fmt: skip
def test_only_a_loaded_runner_of_the_same_kind_is_shared(state: dict[str, Any], shares: bool) -> None:
    assert may_share("m", plan(), [runner("m", **state)]) is shares
    assert not may_share("other", plan(), [runner("m", **state)])


@pytest.mark.parametrize(
    ("loaded", "wanted", "same"),
    [
        ({}, {}, True),
        ({"num_batch": 64}, {}, True),
        ({}, {"num_batch": 64}, False),
        ({"use_mmap": False}, {}, True),
        ({}, {"use_mmap": False}, False),
        ({"num_gpu": 0}, {"num_gpu": -1}, True),
        ({"num_gpu": 0}, {"num_gpu": 4}, False),
        ({}, {"main_gpu": 1}, False),
        ({"num_thread": 2}, {}, False),
    ],
)
def test_what_a_request_leaves_open_needs_no_reload(loaded: dict[str, Any], wanted: dict[str, Any], same: bool) -> None:
    assert is_compatible(plan(**loaded), plan(**wanted)) is same


def spec(
    num_ctx: int = 0, *, kv: int = 0, weights: int = 100 * MIB, trained: int = 8192, embeds: bool = False
) -> ModelSpec:
    memory = MemoryNeed(weights_bytes=weights, kv_bytes_per_token=kv, compute_bytes=MIB)
    return ModelSpec("i", "/p", LoadOptions(num_ctx=num_ctx), memory, trained, "n", "d", is_embedding=embeds)


@pytest.mark.parametrize(
    ("asked", "trained", "length"),
    [(0, 8192, 4096), (1, 8192, 4), (100, 8192, 100), (99_999, 8192, 8192), (0, 512, 512)],
)
def test_the_context_is_as_asked_within_what_was_trained(asked: int, trained: int, length: int) -> None:
    assert plan_load(spec(asked, trained=trained), SupervisorSettings()).context_length == length


@pytest.mark.parametrize(
    ("kv", "budget", "parallel"),
    [(0, 1024, 8), (16 * 1024, 1536, 8), (32 * 1024, 1536, 4), (64 * 1024, 900, 1), (10**9, 900, 1)],
)  # the cache of one slot: 0, 64, 128, 256 MiB
def test_slots_are_halved_until_half_of_the_budget_holds_them(kv: int, budget: int, parallel: int) -> None:
    settings = SupervisorSettings(memory_budget_bytes=budget * MIB)

    assert plan_load(spec(kv=kv), settings).parallel == parallel


def test_the_operator_may_set_the_slots() -> None:
    planned = plan_load(spec(kv=1024), SupervisorSettings(num_parallel=5))

    assert planned.parallel == 5
    assert planned.size - planned.parts.reserve == 100 * MIB + MIB + 5 * 4096 * 1024


def test_a_model_that_only_embeds_has_one_slot() -> None:
    assert plan_load(spec(embeds=True), SupervisorSettings(num_parallel=5)).parallel == 1


def test_a_quantised_cache_takes_less() -> None:
    planned = plan_load(spec(kv=6400), SupervisorSettings(num_parallel=1, kv_cache_type="q8_0"))

    assert planned.size - planned.parts.reserve == 101 * MIB + 4096 * 3400
