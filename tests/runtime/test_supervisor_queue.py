"""Who goes first, simulated: rules of the queue without processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import ModelTooLarge, QueueFull
from runtime.supervisor.queue import PASSES, PATIENCE_S
from tests.queued import END_S, LOAD_S, PLAN, Request, World, trace, world


@pytest.mark.parametrize("every_s", [0.0, 0.2, 0.5], ids=["at once", "while it loads", "soon after"])
def test_who_waits_for_one_model_goes_together(every_s: float) -> None:
    simulated = world()

    simulated.run(trace("ABAACABC", every_s=every_s))

    assert simulated.loads == ["A", "B", "C"]
    assert len(simulated.granted) == 8


def test_an_endless_stream_for_one_model_lets_another_in_after_a_while() -> None:
    simulated = world()

    simulated.run([*trace("A" * 100, every_s=0.1, holds_s=1.0), Request("B", at=4.05, caller="x")])

    (waited,) = [asked for asked in simulated.granted if asked.identity == "B"]
    assert waited.overtaken == PASSES
    assert simulated.loads == ["A", "B", "A"]


def test_patience_ends_by_the_clock_too() -> None:
    simulated = world()

    simulated.run([*trace("A" * 30, every_s=1.0, holds_s=2.0), Request("B", at=4.5)])

    (waited,) = [asked for asked in simulated.granted if asked.identity == "B"]
    assert waited.granted_at is not None
    assert 4.5 + PATIENCE_S <= waited.granted_at <= 4.5 + PATIENCE_S + 2.0 + END_S + LOAD_S
    assert 0 < waited.overtaken < PASSES


def test_one_who_asks_for_much_does_not_make_another_wait_for_all_of_it() -> None:
    simulated = world()
    greedy = [Request(f"M{number}", caller="greedy") for number in range(50)]

    simulated.run([*greedy, Request("Z", at=0.1, caller="modest"), Request("Y", at=0.2, caller="other")])

    assert [asked.request.caller for asked in simulated.granted[:4]] == ["greedy", "modest", "other", "greedy"]


def test_callers_with_long_lines_take_turns() -> None:
    simulated = world()
    one = [Request(f"M{number}", caller="one") for number in range(5)]
    two = [Request(f"N{number}", caller="two") for number in range(5)]

    simulated.run([*one, *two])

    assert [asked.request.caller for asked in simulated.granted] == ["one", "two"] * 5


def test_newcomers_cannot_keep_somebody_waiting_for_ever() -> None:
    simulated = world()
    crowd = [Request(f"M{number % 40}", at=number, caller=f"c{number}", holds_s=0.1) for number in range(150)]

    simulated.run([Request("P", caller="me"), Request("Q", caller="me"), *crowd])

    (second,) = [asked for asked in simulated.granted if asked.identity == "Q"]
    assert simulated.granted.index(second) < 40


def test_other_runners_go_on_while_one_makes_room() -> None:
    simulated = world(max_loaded=2)
    streams = trace("AB" * 60, every_s=0.1, holds_s=1.5)

    simulated.run(
        [Request("A"), Request("B"), *(replace(each, at=each.at + 5) for each in streams), Request("C", at=6)]
    )

    assert simulated.loads[:3] == ["A", "B", "C"]
    assert len(simulated.granted) == 123


def test_a_full_queue_refuses_the_newest_and_says_when_to_ask_again() -> None:
    simulated = world(max_queue=2)

    simulated.run(trace("ABC"))

    ((asked, error),) = simulated.refused
    assert (asked.identity, str(error)) == (
        "C", "server busy, please try again.  maximum pending requests exceeded"
    )  # fmt: skip
    assert isinstance(error, QueueFull)
    assert error.detail["retry_after_s"] == 1


def test_in_a_full_queue_the_one_with_most_makes_room_for_another() -> None:
    simulated = world(max_queue=3)

    simulated.run([*trace("ABC", caller="greedy"), Request("D", at=0.1, caller="modest")])

    assert [asked.identity for asked, _ in simulated.refused] == ["C"]
    assert [asked.identity for asked in simulated.granted] == ["A", "D", "B"]


def test_a_loaded_model_is_asked_past_a_full_queue_but_not_without_end() -> None:
    simulated = world(max_queue=3)

    simulated.run(trace("AAAAAA", every_s=0.01, holds_s=50))
    assert [len(simulated.granted), len(simulated.refused)] == [3, 3]

    late = world(max_queue=3)
    late.run([Request("A", holds_s=50), *(Request("A", at=3, holds_s=50) for _ in range(5))])
    assert len(late.granted) == PLAN.parallel + 3
    assert {type(error) for _, error in late.refused} == {QueueFull}
    assert {error.detail["retry_after_s"] for _, error in late.refused} == {2}


def test_what_can_never_fit_waits_for_nobody() -> None:
    simulated = world(budget=100)

    simulated.run([Request("A", holds_s=60), Request("B", at=5, plan=replace(PLAN, size=101)), Request("C", at=6)])

    ((asked, error),) = simulated.refused
    assert (asked.identity, type(error)) == ("B", ModelTooLarge)


def test_other_load_options_wait_for_those_in_use_and_then_load_anew() -> None:
    other = replace(PLAN, context_length=128)
    simulated = world(max_loaded=3)

    simulated.run([Request("A", holds_s=4), Request("A", at=3, plan=other), Request("A", at=3.5)])

    assert [asked.plan.context_length for asked in simulated.granted] == [4096, 4096, 128]
    assert simulated.loads == ["A", "A"]


OTHER = replace(PLAN, context_length=128)


def granted_at(simulated: World, at: float) -> float | None:
    """When the request that came then got its model."""
    (asked,) = [asked for asked in simulated.granted if asked.request.at == at]
    return asked.granted_at


@pytest.mark.parametrize("other", [Request("A", plan=OTHER), Request("B")], ids=["in another way", "another model"])
def test_who_gives_up_closes_no_model_to_others(other: Request) -> None:
    simulated = world()

    simulated.run(
        [Request("A", holds_s=60), replace(other, at=1, gives_up_s=9), Request("A", at=8), Request("A", at=12)]
    )

    assert [granted_at(simulated, at) for at in (8, 12)] == [10, 12]  # it was to leave from 7 on
    assert simulated.loads == ["A"]


def test_a_model_leaves_for_the_next_one_who_needs_its_place_too() -> None:
    simulated = world()

    simulated.run([
        Request("A", holds_s=20), Request("B", at=1, gives_up_s=9), Request("C", at=2), Request("A", at=12)
    ])  # fmt: skip

    assert simulated.loads == ["A", "C", "A"]
    assert granted_at(simulated, 2) == pytest.approx(LOAD_S + 20 + END_S + LOAD_S)


def test_a_model_stays_once_another_has_made_room() -> None:
    simulated = world(max_loaded=2)

    simulated.run([
        Request("A", holds_s=60), Request("B", at=0.1, holds_s=10), Request("C", at=5), Request("A", at=20)
    ])  # fmt: skip

    assert simulated.loads == ["A", "B", "C"]
    assert granted_at(simulated, 20) == 20


def test_a_model_that_is_unloaded_leaves_whoever_gives_up() -> None:
    simulated = world()
    simulated.later(8, lambda: simulated.queue.dismiss("A"))

    simulated.run([Request("A", holds_s=60), Request("B", at=1, gives_up_s=9), Request("A", at=12)])

    assert simulated.loads == ["A", "A"]
    assert granted_at(simulated, 12) == pytest.approx(LOAD_S + 60 + END_S + LOAD_S)


requests = st.builds(
    Request,
    st.sampled_from("ABC"),
    st.integers(0, 200).map(lambda tenths: tenths / 10),
    st.sampled_from("xyz"),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([PLAN, PLAN, PLAN, OTHER]),
)
impatient = st.builds(
    lambda request, gives_up_s: replace(request, gives_up_s=gives_up_s), requests, st.sampled_from([None, 0.5, 7.0])
)


@settings(deadline=None, max_examples=150)
@given(asked=st.lists(requests, max_size=60), max_loaded=st.integers(1, 2))
def test_nobody_waits_for_ever_and_nobody_is_passed_without_end(asked: list[Request], max_loaded: int) -> None:
    simulated = world(max_loaded)

    simulated.run(asked)

    assert len(simulated.granted) == len(asked)
    if max_loaded == 1:
        for each in simulated.granted:
            assert each.passed <= PASSES
            assert each.overtaken <= PASSES
            assert each.headed_s <= PATIENCE_S + 3.0 + END_S + LOAD_S + 1e-6


@settings(deadline=None, max_examples=100)
@given(asked=st.lists(impatient, max_size=60), max_loaded=st.integers(1, 2))
def test_whoever_gives_up_all_others_are_served(asked: list[Request], max_loaded: int) -> None:
    simulated = world(max_loaded)

    simulated.run(asked)

    served = Counter(each.request for each in simulated.granted)
    assert not Counter(request for request in asked if request.gives_up_s is None) - served
    assert not any(runner.is_leaving and not runner.is_ending for runner in simulated.runners.values())


@settings(deadline=None, max_examples=60)
@given(models=st.lists(st.sampled_from("ABCDE"), max_size=PASSES))
def test_at_once_each_model_is_loaded_once(models: list[str]) -> None:
    simulated = world()

    simulated.run([Request(model) for model in models])

    assert Counter(simulated.loads) == Counter(set(models))
