"""Addresses that fail too often have to wait."""

from __future__ import annotations

import pytest

from auth.errors import TooManyRequests
from auth.throttle import A_SECOND, BURST, Throttle
from tests.auth.conftest import Clock


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(now=clock)


def fail(throttle: Throttle, address: str, times: int = int(BURST)) -> None:
    for _ in range(times):
        throttle.check(address)
        throttle.count(address)


def test_an_address_that_fails_too_often_waits_and_is_told_how_long(throttle, clock):
    fail(throttle, "192.0.2.1")

    with pytest.raises(TooManyRequests) as refused:
        throttle.check("192.0.2.1")

    assert refused.value.retry_after_s == round(1 / A_SECOND)
    clock.now += refused.value.retry_after_s
    throttle.check("192.0.2.1")


def test_other_addresses_do_not_wait(throttle):
    fail(throttle, "192.0.2.1")

    throttle.check("192.0.2.2")
    throttle.check("2001:db8::1")


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "unix:", True),
    ],
)
def test_an_ipv6_customer_is_one_address(throttle, first, second, is_same):
    fail(throttle, first)

    if is_same:
        with pytest.raises(TooManyRequests):
            throttle.check(second)
    else:
        throttle.check(second)


def test_failing_now_and_then_costs_nothing(throttle, clock):
    for _ in range(1000):
        fail(throttle, "192.0.2.1", 1)
        clock.now += 1 / A_SECOND


def test_addresses_without_number_take_no_memory_without_bound(throttle):
    for number in range(12_000):
        throttle.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(throttle._records) == 10_000
