"""Which lane a prompt gets, and what is lost and copied for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.runner.prefixes import common_prefix
from runtime.runner.scheduler import TILE
from runtime.runner.slots import Slots, Taken

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

    assert (taken.slot.number, taken.shared, taken.source) == (1, 1000, None)


def test_a_shared_beginning_is_copied_and_the_longer_conversation_stays() -> None:
    slots = used([[7] * 300, LONG])
    prompt = LONG[:600] + [5] * 400

    taken = taken_by(slots, prompt)

    assert taken.source is not None
    assert (taken.slot.number, taken.shared, taken.source.number) == (0, 600, 1)
    assert taken.slot.tokens == LONG[:600]
    assert taken_by(slots, LONG).shared == len(LONG) - 1


def test_the_beginning_of_a_busy_lane_is_copied() -> None:
    slots = Slots(2)
    busy = taken_by(slots, LONG).slot
    busy.append(LONG[:1024])
    slots.note(busy)

    taken = taken_by(slots, LONG)

    assert (taken.slot.number, taken.shared, taken.source) == (1, 1024, busy)


def test_without_copies_a_free_lane_is_used_and_a_busy_one_is_not() -> None:
    slots = used([[7] * 300, LONG], copies=False)
    prompt = LONG[:600] + [5] * 400

    assert (taken_by(slots, prompt).slot.number, taken_by(slots, prompt).shared) == (1, 0)


def test_little_is_not_copied() -> None:
    slots = used([[7] * 300, LONG])

    taken = taken_by(slots, LONG[: TILE - 1] + [5] * 400)

    assert taken.source is None


def test_a_prompt_that_nothing_resembles_gets_the_lane_that_was_idle_longest() -> None:
    slots = used([[1] * 9, [2] * 9, [3] * 9])

    taken = taken_by(slots, [4] * 9)

    assert (taken.slot.number, taken.shared, taken.slot.tokens) == (0, 0, [])


def test_nobody_goes_on_from_the_prompt_of_another() -> None:
    slots = used([LONG, LONG], caller="one")

    taken = taken_by(slots, LONG, "other")

    assert (taken.shared, taken.slot.tokens, taken.source) == (0, [], None)
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
        st.sampled_from(["take", "read", "end"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
        st.integers(1, 900),
    ),
    max_size=40,
)


@given(turns=turns, count=st.integers(1, 4), copies=st.booleans())
def test_whatever_happens_a_lane_holds_what_it_says(
    turns: list[tuple[str, str, int, int]], count: int, copies: bool
) -> None:
    """`cells` is what a cache would hold: only by copies, cuts and reading does it change."""
    slots = Slots(count, copies=copies)
    cells: dict[int, list[int]] = {number: [] for number in range(count)}
    owners: dict[int, str] = {}
    running: list[tuple[Taken, list[int]]] = []
    for kind, caller, version, length in turns:
        if kind == "take":
            prompt = [version * (place // 300) for place in range(length)]  # they part at 300
            taken = slots.take(prompt, caller)
            assert (taken is None) == (len(running) == count)
            if taken is None:
                continue
            number = taken.slot.number
            assert all(number != other.slot.number for other, _ in running)
            if taken.source is not None:
                assert copies and owners[taken.source.number] == caller
                cells[number] = list(cells[taken.source.number])
            elif taken.shared:
                assert owners[number] == caller
            cells[number] = cells[number][: taken.shared]
            owners[number] = caller
            assert taken.shared < len(prompt)
            assert common_prefix(cells[number], prompt) == taken.shared == len(taken.slot.tokens)
            running.append((taken, prompt))
        elif running and kind == "read":
            taken, prompt = running[version % len(running)]
            part = prompt[len(taken.slot.tokens) : len(taken.slot.tokens) + length]
            taken.slot.append(part)
            cells[taken.slot.number] += part
            slots.note(taken.slot)
        elif running:
            taken, _ = running.pop(version % len(running))
            slots.give_back(taken.slot)
        assert all(cells[taken.slot.number] == taken.slot.tokens for taken, _ in running)
