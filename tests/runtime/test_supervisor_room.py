"""Which idle models give up their files, and which do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.supervisor.room import IDLE_S, Choice, Holder, choose

NOW = 1000.0
holders_drawn = st.lists(
    st.builds(
        Holder,
        identity=st.uuids().map(str),
        files=st.dictionaries(st.sampled_from("abcde"), st.just(10), max_size=3),
        idle_since=st.one_of(st.none(), st.floats(900, NOW)),
        is_ending=st.booleans(),
    ),
    max_size=6,
)


def idle(identity: str, size: int, for_s: float = 100.0, **more: int) -> Holder:
    return Holder(identity, {identity: size, **more}, NOW - for_s)


def busy(identity: str, size: int, **more: int) -> Holder:
    return Holder(identity, {identity: size, **more})


def test_the_one_that_was_idle_longest_goes_and_no_other() -> None:
    assert choose([idle("new", 10, 50), idle("old", 10, 90)], 5, NOW) == Choice(("old",))


def test_nobody_goes_where_all_that_are_idle_are_not_enough() -> None:
    assert choose([busy("a", 100), idle("b", 10), idle("c", 10)], 21, NOW) is None


def test_a_small_one_does_not_go_in_vain_before_a_large_one() -> None:
    assert choose([idle("small", 1, 90), idle("large", 50, 20)], 50, NOW) == Choice(("large",))


def test_files_that_one_at_work_has_too_are_not_free() -> None:
    shared = {"weights": 50}
    assert choose([busy("a", 1, **shared), idle("b", 1, **shared)], 10, NOW) is None


def test_files_of_two_idle_ones_are_free_when_both_go() -> None:
    shared = {"weights": 50}
    assert choose([idle("a", 1, 90, **shared), idle("b", 1, 80, **shared)], 50, NOW) == Choice(("a", "b"))


def test_one_that_was_asked_a_moment_ago_is_waited_for() -> None:
    assert choose([idle("a", 10, IDLE_S - 2)], 10, NOW) == Choice(("a",), 2.0)


def test_one_that_ends_already_is_enough() -> None:
    ending = Holder("a", {"a": 10}, is_ending=True)

    assert choose([idle("b", 10), ending], 10, NOW) == Choice(("a",))


@given(holders_drawn, st.integers(1, 60))
def test_what_is_chosen_is_enough_and_each_of_it_needed(holders: list[Holder], lacking: int) -> None:
    choice = choose(holders, lacking, NOW)

    def freed(gone: set[str]) -> int:
        kept = {path for each in holders if each.identity not in gone for path in each.files}
        return 10 * len({path for each in holders if each.identity in gone for path in each.files} - kept)

    may_go = {each.identity for each in holders if each.is_ending or each.idle_since is not None}
    if choice is None:
        assert freed(may_go) < lacking
        return
    chosen, ending = set(choice.identities), {each.identity for each in holders if each.is_ending}
    assert chosen <= may_go
    assert freed(chosen) >= lacking
    assert all(freed(chosen - {each}) < lacking for each in chosen - ending)
    assert 0 <= choice.wait_s <= IDLE_S
