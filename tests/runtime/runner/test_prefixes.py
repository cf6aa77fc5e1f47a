"""The radix tree of what lanes hold, beside a list that is searched from end to end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.runner.prefixes import Prefixes, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=12)  # few ids: histories begin alike often
callers = st.sampled_from(["", "a", "b"])
lanes = st.integers(0, 5)


class Held(RuleBasedStateMachine):
    """Any order of puts and removals, against the plain search."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Prefixes()
        self.held: dict[int, tuple[str, list[int]]] = {}

    @rule(lane=lanes, caller=callers, history=tokens)
    def put(self, lane: int, caller: str, history: list[int]) -> None:
        self.tree.put(lane, caller, history)
        self.held[lane] = (caller, history)

    @rule(lane=lanes)
    def remove(self, lane: int) -> None:
        self.tree.remove(lane)
        self.held.pop(lane, None)

    @rule(caller=callers, prompt=tokens)
    def look_up(self, caller: str, prompt: list[int]) -> None:
        found = list(self.tree.matches(caller, prompt))

        lengths = {lane: match.length for match in found for lane in match.lanes}
        assert lengths == {
            lane: same
            for lane, (holder, history) in self.held.items()
            if holder == caller and (same := plain_prefix(history, prompt))
        }
        assert [match.length for match in found] == sorted((match.length for match in found), reverse=True)

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        assert set(self.tree._roots) == {caller for caller, history in self.held.values() if history}


def plain_prefix(left: list[int], right: list[int]) -> int:
    same = 0
    while same < min(len(left), len(right)) and left[same] == right[same]:
        same += 1
    return same


TestHeld = Held.TestCase


@given(left=tokens, right=tokens)
def test_common_prefix(left: list[int], right: list[int]) -> None:
    assert common_prefix(left, right) == plain_prefix(left, right)


def test_nobody_finds_what_another_asked() -> None:
    tree = Prefixes()
    tree.put(0, "one", list(range(500)))

    assert not list(tree.matches("other", list(range(500))))
    assert [match.length for match in tree.matches("one", list(range(400)))] == [400]


@pytest.mark.parametrize("first", [300, 500, 700])
def test_a_history_that_ends_within_another(first: int) -> None:
    tree = Prefixes()
    tree.put(0, "", list(range(first)))
    tree.put(1, "", list(range(500)))

    (longest, *_) = tree.matches("", list(range(600)))

    assert longest.length == max(min(first, 600), 500)
    tree.remove(1)
    assert [match.length for match in tree.matches("", list(range(600)))] == [min(first, 600)]
