"""What goes into a step, and which slot a prompt gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.runner.scheduler import TILE, plan_step, reusable
from runtime.runner.slots import Slot

lengths = st.lists(st.integers(1, 5000), max_size=12)


@given(decoding=st.integers(0, 16), unread=lengths, limit=st.integers(1, 2048))
def test_a_step_is_never_too_large_and_always_moves(decoding: int, unread: list[int], limit: int) -> None:
    shares = plan_step(decoding, unread, limit)

    assert len(shares) == len(unread)
    assert all(0 <= share <= left for share, left in zip(shares, unread, strict=True))
    assert sum(shares) <= max(limit - decoding, 0)
    assert any(shares) or not unread or decoding >= limit


@given(unread=st.lists(st.integers(1, 5000), min_size=1, max_size=12), decoding=st.integers(0, 16))
def test_prompts_are_cut_between_tiles_only(unread: list[int], decoding: int) -> None:
    shares = plan_step(decoding, unread, 512)

    for share, left in zip(shares, unread, strict=True):
        assert share in (0, left) or (share % TILE == 0 and left - share >= TILE)


@given(unread=st.lists(st.integers(1, 5000), min_size=1, max_size=12), decoding=st.integers(0, 16))
def test_every_prompt_is_read_in_the_end(unread: list[int], decoding: int) -> None:
    for _ in range(sum(unread)):
        unread = [left - share for left, share in zip(unread, plan_step(decoding, unread, 512), strict=True)]
        unread = [left for left in unread if left]
        if not unread:
            break

    assert not unread


@given(unread=st.lists(st.integers(1, 5000), min_size=1, max_size=12), decoding=st.integers(0, 64))
def test_the_first_that_came_moves_whoever_comes_after(unread: list[int], decoding: int) -> None:
    assert plan_step(decoding, unread, 512)[0] >= min(unread[0], TILE)


@given(decoding=st.integers(0, 16), ahead=st.integers(0, 3), long=st.integers(600, 8000))
def test_an_answer_gets_a_token_in_every_step(decoding: int, ahead: int, long: int) -> None:
    """However much is to be read, a step has room for one token of each answer, and stays as short as any other."""
    shares = plan_step(decoding, [long] * (ahead + 1), 512)

    assert decoding + sum(shares) <= 512


@pytest.mark.parametrize(
    ("decoding", "unread", "limit", "shares"),
    [
        pytest.param(3, [], 512, [], id="nobody reads"),
        pytest.param(0, [600], 512, [512], id="alone"),
        pytest.param(4, [600], 512, [448], id="answers first"),
        pytest.param(0, [4000, 30], 512, [448, 30], id="the short one goes whole, the long one moves"),
        pytest.param(0, [4000, 4000], 512, [512, 0], id="equals one after the other"),
        pytest.param(0, [4000, 200, 100], 512, [192, 200, 100], id="short ones first"),
        pytest.param(0, [4000, 600], 512, [64, 448], id="the first one moves always"),
        pytest.param(8, [100], 32, [24], id="a step below a tile"),
        pytest.param(8, [100], 8, [0], id="no room"),
    ],
)
def test_shares(decoding: int, unread: list[int], limit: int, shares: list[int]) -> None:
    assert plan_step(decoding, unread, limit) == shares


@pytest.mark.parametrize(
    ("shared", "prompt", "kept"),
    [
        pytest.param(30, 30, 20, id="a short prompt goes on after what was computed without tiles"),
        pytest.param(10, 30, 10, id="a short prompt keeps what it shares"),
        pytest.param(99, 200, 64, id="from the tile before"),
        pytest.param(200, 200, 128, id="a whole tile is left"),
        pytest.param(240, 256, 128, id="nothing after what was read in tiles"),
        pytest.param(2000, 2000, 1999, id="a long prompt keeps all but one"),
        pytest.param(1500, 2000, 1500, id="a long prompt keeps what it shares"),
    ],
)
def test_reuse(shared: int, prompt: int, kept: int) -> None:
    assert reusable(shared, prompt, untiled=20, tiled=130) == kept


def test_a_slot_knows_where_its_first_tile_begins() -> None:
    slot = Slot(0, 0)
    slot.append(range(10))
    slot.append([1])
    slot.append(range(TILE))
    slot.append([2])
    assert (slot.untiled, slot.tiled) == (11, 0)

    slot.keep(5)
    slot.append([3])
    assert slot.untiled == 6


def test_a_slot_knows_how_much_was_read_in_tiles() -> None:
    slot = Slot(0, 0)
    slot.append(range(2 * TILE))
    slot.append(range(TILE + 5))
    slot.append([1])
    slot.append(range(TILE))
    assert (slot.untiled, slot.tiled) == (0, 3 * TILE + 5)

    slot.keep(TILE)
    slot.append([2])
    assert slot.tiled == TILE
