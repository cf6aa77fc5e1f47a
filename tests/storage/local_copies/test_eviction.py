"""Which copies make room for another one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.local_copies.eviction import Entry, choose, most_bytes

SIZES = st.integers(0, 1000)
ENTRIES = st.lists(
    st.builds(Entry, st.uuids().map(str), SIZES, st.integers(0, 9).map(float), st.booleans(), st.booleans()),
    unique_by=lambda entry: entry.name,
    max_size=12,
)


def total(entries) -> int:
    return sum(entry.size for entry in entries)


@given(entries=ENTRIES, needed=SIZES, most=st.integers(0, 5000))
def test_what_goes_is_enough_and_no_more_and_never_in_use(entries, needed, most):
    chosen = choose(entries, needed, most)

    if chosen is None:
        assert total(entry for entry in entries if entry.is_held) + needed > most
        return
    kept = [entry for entry in entries if entry not in chosen]
    assert total(kept) + needed <= most
    assert not any(entry.is_held for entry in chosen)
    if chosen:
        assert total([*kept, chosen[-1]]) + needed > most


@given(entries=ENTRIES, needed=SIZES, most=st.integers(0, 5000))
def test_what_stays_was_used_later_and_what_was_begun_and_left_goes_first(entries, needed, most):
    chosen = choose(entries, needed, most) or []

    free = [entry for entry in entries if entry not in chosen and not entry.is_held]
    for gone in chosen:
        for kept in free:
            assert (gone.is_part, -gone.used_at) >= (kept.is_part, -kept.used_at)


@given(bound=st.integers(1, 10**15), free=st.integers(0, 10**15), taken=st.integers(0, 10**15))
def test_copies_have_no_more_than_the_bound_and_than_the_disk(bound, free, taken):
    assert most_bytes(bound, free=free, taken=taken) == min(bound, free + taken)


@given(free=st.integers(0, 10**15), taken=st.integers(0, 10**15))
def test_without_a_bound_a_tenth_of_what_is_free_without_them_stays_free(free, taken):
    most = most_bytes(0, free=free, taken=taken)

    assert most <= (free + taken) * 0.9 + 1e-3 * (free + taken)
    assert most == most_bytes(0, free=free + taken, taken=0)
