"""Who of those that wait is next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.runner.turns import Turns


def filled(*waiting: tuple[str, int]) -> Turns[int]:
    turns: Turns[int] = Turns()
    for caller, item in waiting:
        turns.add(caller, item)
    return turns


def test_callers_take_turns_whoever_has_more() -> None:
    turns = filled(*[("a", number) for number in range(4)], ("b", 10), ("c", 20))

    assert [turns.pop() for _ in range(6)] == [0, 10, 20, 1, 2, 3]
    assert not len(turns)


def test_who_comes_back_comes_after_those_who_wait() -> None:
    turns = filled(("a", 1), ("a", 2), ("b", 10))
    turns.pop()
    turns.add("c", 20)

    assert [turns.pop() for _ in range(3)] == [10, 2, 20]


def test_who_gives_up_is_not_waited_for() -> None:
    turns = filled(("a", 1), ("b", 2))

    turns.remove(1)

    assert 1 not in turns and list(turns) == [2]
    with pytest.raises(ValueError, match="not waiting"):
        turns.remove(1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=30, unique_by=lambda each: each[1]))
def test_nobody_is_lost_and_each_callers_order_is_kept(waiting: list[tuple[str, int]]) -> None:
    turns = filled(*waiting)
    served = [turns.pop() for _ in waiting]

    for caller in "abc":
        own = [item for who, item in waiting if who == caller]
        assert [item for item in served if item in own] == own


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers()), min_size=1, max_size=30, unique_by=lambda each: each[1])
)
def test_a_caller_waits_for_one_of_each_other_at_most(waiting: list[tuple[str, int]]) -> None:
    turns = filled(*waiting)
    by = {item: caller for caller, item in waiting}
    served = [by[turns.pop()] for _ in waiting]

    for caller in set(served):
        places = [place for place, who in enumerate(served) if who == caller]
        for earlier, later in zip([-1, *places], places, strict=False):
            between = served[earlier + 1 : later]
            assert all(between.count(other) <= 1 for other in set(between))
