"""Options of requests and layers, whatever numbers they are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import OptionInvalid
from runtime.options import merge_options

INT32 = 2**31 - 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.9, 1), (-1.9, -1), (10**400, INT32), (-(10**400), -INT32), (math.inf, INT32), (-1e300, -INT32)],
)
def test_integers_are_cut_to_what_the_sampler_can_hold(value: float, expected: int) -> None:
    load, sample = merge_options({"num_ctx": value, "seed": value})

    assert (load.num_ctx, sample.seed) == (expected, expected)


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (10**400, 3.4e38), (-(10**400), -3.4e38), (1e300, 3.4e38)])
def test_so_are_floats(value: float, expected: float) -> None:
    assert merge_options({"temperature": value})[1].temperature == expected


@pytest.mark.parametrize("key", ["num_batch", "top_p"])
@pytest.mark.parametrize("value", [True, "1", [], math.nan])
def test_what_is_no_number_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(OptionInvalid, match=key):
        merge_options({key: value})


@given(st.one_of(st.integers(), st.integers().map(lambda n: n * 10**400), st.floats(allow_nan=False)))
def test_every_number_is_taken(value: float) -> None:
    load, sample = merge_options({"num_gpu": value, "temperature": value})

    assert -INT32 <= load.num_gpu <= INT32
    assert math.isfinite(sample.temperature)


def test_later_layers_win_and_nulls_reset_nothing() -> None:
    load, sample = merge_options({"top_k": 1, "num_ctx": 8}, None, {"top_k": 2, "num_ctx": None, "unknown": {}})

    assert (load.num_ctx, sample.top_k) == (8, 2)
