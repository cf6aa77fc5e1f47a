"""Which lane a prompt gets, and what is lost and copied for it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.runner.scheduler import TILE
from runtime.runner.slots import Copy, Slot, Slots, Taken

LONG = list(range(2000))


def used(contents: list[list[int]], *, copies: bool = True, caller: str = "") -> Slots:
    """Slots that are free and hold `contents`, the first idle longest."""
    slots = Slots(len(contents), copies=copies)
    taken = []
    for content in contents:
        slot = taken_by(slots, [-1], "nobody")
        slot.slot.caller = caller
        slot.slot.append(content)
        taken.append(slot.slot)
    for one in taken:
        slots.give_back(one)
    return slots


def taken_by(slots: Slots, prompt: list[int], caller: str = "") -> Taken:
    taken = slots.take(prompt, caller)
    assert taken is not None
    return taken


def test_a_conversation_goes_on_in_its_own_lane() -> None:
    slots = used([[7] * 300, LONG[:1000], [8] * 300])

    taken = taken_by(slots, LONG)

    assert (taken.slot.number, taken.shared, taken.copies) == (1, 1000, ())


def test_a_shared_beginning_is_copied_and_the_longer_conversation_stays() -> None:
    slots = used([[7] * 300, LONG])
    prompt = LONG[:600] + [5] * 400

    taken = taken_by(slots, prompt)

    assert (taken.slot.number, taken.shared, taken.copies) == (0, 600, (Copy(1, 0),))
    assert taken.slot.tokens == LONG[:600]
    assert taken_by(slots, LONG).shared == len(LONG) - 1


def test_the_beginning_of_a_busy_lane_is_copied() -> None:
    slots = Slots(2)
    busy = taken_by(slots, LONG).slot
    busy.append(LONG[:1024])
    slots.note(busy)

    taken = taken_by(slots, LONG)

    assert (taken.slot.number, taken.shared, taken.copies) == (1, 1024, (Copy(0, 1),))


def test_without_copies_a_free_lane_is_used_and_a_busy_one_is_not() -> None:
    slots = used([[7] * 300, LONG], copies=False)
    prompt = LONG[:600] + [5] * 400

    first, second = taken_by(slots, prompt), taken_by(slots, prompt)
    assert (first.slot.number, first.shared) == (0, 0)
    assert (second.slot.number, second.shared, second.copies) == (1, 600, ())


def test_little_is_not_copied() -> None:
    slots = used([[7] * 300, LONG])

    taken = taken_by(slots, LONG[: TILE - 1] + [5] * 400)

    assert (taken.slot.number, taken.shared, taken.copies) == (0, 0, ())
    assert taken_by(slots, LONG).shared == len(LONG) - 1  # nor is it lost


@pytest.mark.parametrize(("lane_tokens", "shared"), [(4096, 900), (64_000, 0)])
def test_of_long_lanes_more_must_be_shared(lane_tokens: int, shared: int) -> None:
    slots = Slots(2, lane_tokens=lane_tokens)
    busy = taken_by(slots, LONG).slot
    busy.append(LONG)
    slots.note(busy)

    assert taken_by(slots, LONG[:900] + [5] * 400).shared == shared


def test_what_cannot_be_gone_back_to_is_not_offered() -> None:
    slots = used([[7] * 300, LONG])
    slots._reaches = lambda number, length: length == len(LONG) - 1

    assert taken_by(slots, LONG[:600] + [5] * 400).shared == 0
    assert taken_by(slots, LONG).shared == len(LONG) - 1


def test_lanes_at_work_are_neighbours_and_what_was_there_moves_away() -> None:
    slots = used([[1] * 300, [2] * 300, [3] * 300, [4] * 300])
    far = taken_by(slots, [4] * 300 + LONG)  # the last lane goes on

    near = taken_by(slots, [9] * 50)

    assert (far.slot.number, near.slot.number, near.copies) == (3, 2, (Copy(2, 0),))
    assert taken_by(slots, [3] * 300 + LONG).shared == 300


def test_lanes_that_are_left_apart_are_brought_together() -> None:
    slots = Slots(4, lane_tokens=1024)
    taken = [taken_by(slots, [number] * 9).slot for number in range(4)]
    for slot, length in zip(taken, (300, 200, 300, 300), strict=True):
        slot.append([slot.number] * length)
    slots.give_back(taken[2])
    slots.give_back(taken[1])

    assert slots.compact() == []  # the gap has just come
    copies = slots.compact()

    assert copies == [Copy(1, 2), Copy(3, 1)]  # what was in 1 is younger than what was in 2
    assert (taken[0].number, taken[3].number) == (0, 1)
    assert not slots.compact()


@pytest.mark.parametrize("copies", [True, False])
def test_lanes_that_are_together_stay(copies: bool) -> None:
    slots = Slots(4, copies=copies)
    taken = [taken_by(slots, [1] * 9).slot for _ in range(4)]
    slots.give_back(taken[0])

    assert slots.compact() == []


def test_a_prompt_that_nothing_resembles_gets_the_lane_that_was_idle_longest() -> None:
    slots = used([[1] * 9, [2] * 9, [3] * 9])

    taken = taken_by(slots, [4] * 9)

    assert (taken.slot.number, taken.shared, taken.slot.tokens) == (0, 0, [])


def test_nobody_goes_on_from_the_prompt_of_another() -> None:
    slots = used([LONG, LONG], caller="one")

    taken = taken_by(slots, LONG, "other")

    assert (taken.shared, taken.slot.tokens) == (0, [])
    assert taken_by(slots, LONG, "one").shared == len(LONG) - 1


def test_busy_lanes_are_not_given_twice() -> None:
    slots = Slots(2)

    assert taken_by(slots, [1]).slot is not taken_by(slots, [1]).slot
    assert slots.take([1]) is None
    assert not slots.has_free


def test_what_came_after_a_shift_is_not_reused() -> None:
    slots = Slots(1)
    slot = taken_by(slots, [0]).slot
    slot.append(LONG[:1000])
    slot.shift(4, 496)
    slot.append([7])
    prompt = list(slot.tokens)
    slots.give_back(slot)

    assert taken_by(slots, prompt).shared == 4


def test_what_is_forgotten_is_not_found() -> None:
    slots = Slots(2)
    slot = taken_by(slots, LONG).slot
    slot.append(LONG)
    slots.note(slot)

    slots.forget(slot)

    assert taken_by(slots, LONG).shared == 0


turns = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "read", "end", "compact"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
        st.integers(1, 900),
    ),
    max_size=40,
)


@given(turns=turns, count=st.integers(1, 5), copies=st.booleans())
def test_whatever_happens_a_lane_holds_what_it_says(
    turns: list[tuple[str, str, int, int]], count: int, copies: bool
) -> None:
    """`cells` is what a cache would hold, and whose it is: only copies, cuts and reading change it."""
    slots = Slots(count, copies=copies)
    cells: dict[int, list[tuple[str, int]]] = {number: [] for number in range(count)}
    running: list[tuple[Slot, str]] = []

    def make(made: Iterable[Copy]) -> None:
        for copy in made:
            assert copies
            cells[copy.target] = list(cells[copy.source])

    for kind, caller, version, length in turns:
        if kind == "take":
            prompt = [version * (place // 300) for place in range(length)]  # they part at 300
            taken = slots.take(prompt, caller)
            assert (taken is None) == (len(running) == count)
            if taken is None:
                continue
            make(taken.copies)
            number = taken.slot.number
            cells[number] = cells[number][: taken.shared]
            assert taken.shared < len(prompt)
            assert cells[number] == [(caller, token) for token in prompt[: taken.shared]]
            running.append((taken.slot, caller))
        elif kind == "compact":
            make(slots.compact())
            lanes = sorted(slot.number for slot, _ in running)
            assert not copies or not lanes or lanes == list(range(lanes[0], lanes[0] + len(lanes)))
        elif running and kind == "read":
            slot, owner = running[version % len(running)]
            part = [version * (place // 300) for place in range(len(slot.tokens), len(slot.tokens) + length)]
            slot.append(part)
            cells[slot.number] += [(owner, token) for token in part]
            slots.note(slot)
        elif running:
            slot, _ = running.pop(version % len(running))
            slots.give_back(slot)
        assert len({slot.number for slot in slots._slots}) == count
        for slot, owner in running:
            assert cells[slot.number] == [(owner, token) for token in slot.tokens]
        for slot in slots._slots:
            assert cells[slot.number][: len(slot.tokens)] == [(slot.caller, token) for token in slot.tokens]
