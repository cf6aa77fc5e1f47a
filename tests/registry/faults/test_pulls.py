"""Pulls of a server through everything that a network and a registry may do: the right bytes, or one clear line.

What is pulled is dropped afterwards, so that the next test cannot find its bytes nearby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.backends import ON_S3
from tests.exchange import Fault
from tests.faults import (
    CutsAnswer,
    Flips,
    Holds,
    KnowsNoRanges,
    MisstatesLength,
    Says,
    ShiftsRange,
    Slows,
)
from tests.registry.faults.world import MIB, SUCCESS, Model, Registry, World, asks, error_of
from tests.signed_addresses import SignedAddresses

PART = 8 * MIB  # what one sum of a server of ours covers


@pytest.fixture
def pulled(world: World, registry: Registry, model: Model) -> Iterator[str]:
    """The path of a model to pull."""
    path = registry.offer(model)
    yield path
    world.drop(registry, path)


def finish(world: World, registry: Registry, path: str, model: Model) -> str:
    """Pull; where that fails, nothing is to be seen, and a second pull succeeds. What the first one said."""
    error = error_of(world.pull(registry, path))
    if error:
        assert not world.is_visible(registry, path)
        assert world.pull(registry, path)[-1] == SUCCESS
    assert world.holds(registry, path, model)
    return error


def sent_again(registry: Registry, path: str, model: Model) -> int:
    """Bytes of the first layer that were sent more than once."""
    digest = model.digests[0]
    return registry.proxy.traffic("GET", f"/v2/{path}/blobs/{digest}").down - len(model.blobs[digest])


def test_cuts_cost_next_to_nothing(world: World, registry: Registry, pulled: str, model: Model) -> None:
    of_it = asks("GET", pulled, model.digests[0])
    cuts = [registry.proxy.when(of_it, CutsAnswer(after)) for after in (0, 100_000, 700_000, MIB - 1)]

    assert finish(world, registry, pulled, model) == ""

    assert all(cut.met for cut in cuts)
    assert sent_again(registry, pulled, model) < 0.05 * len(model.blobs[model.digests[0]])


def test_of_a_flipped_bit_only_its_part_is_fetched_again(
    world: World, registry: Registry, pulled: str, model: Model
) -> None:
    flips = Flips(10 * MIB)
    registry.proxy.when(asks("GET", pulled, model.digests[0]), flips, times=99)

    error = finish(world, registry, pulled, model)

    assert flips.has_flipped
    # Others have no sums of parts, and parts in a bucket cannot be read: it is said, and all of the blob comes again.
    if registry.make == "tonnage" and not ON_S3:
        assert error == ""
        assert sent_again(registry, pulled, model) <= PART
    else:
        assert error.startswith("digest mismatch, file must be downloaded again")


def test_a_busy_registry_is_asked_again(world: World, ours: Registry, small: Model) -> None:
    path = ours.offer(small)
    unavailable = Says(503, {"Retry-After": "1"}, b'{"errors":[{"code":"UNAVAILABLE","message":"soon"}]}')
    busy = [
        ours.proxy.when(asks("GET", path, "manifests"), Says(500)),
        ours.proxy.when(asks("GET", path, small.digests[0]), unavailable),
        ours.proxy.when(asks("GET", path, small.digests[1]), Says(429, {"Retry-After": "1"})),
    ]

    assert finish(world, ours, path, small) == ""

    assert all(rule.met for rule in busy)
    world.drop(ours, path)


LIES: dict[str, Callable[[], Fault]] = {
    "no ranges": KnowsNoRanges,
    "another range": ShiftsRange,
    "a longer body": lambda: MisstatesLength(1000),
    "a shorter body": lambda: MisstatesLength(-1000),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_what_is_sent_never_end_in_other_bytes(world: World, ours: Registry, small: Model, lie: str) -> None:
    path = ours.offer(small)
    of_it = asks("GET", path, small.digests[0])
    ours.proxy.when(of_it, CutsAnswer(100_000))
    lies = ours.proxy.when(of_it, LIES[lie]())

    finish(world, ours, path, small)

    assert lies.met
    world.drop(ours, path)


def test_a_registry_that_knows_no_ranges_at_all_is_pulled_from(
    world: World, registry: Registry, pulled: str, model: Model
) -> None:
    knows_none = registry.proxy.when(asks("GET", pulled, model.digests[0]), KnowsNoRanges(), times=99)

    assert finish(world, registry, pulled, model) == ""

    assert knows_none.met


def test_nothing_is_to_be_seen_before_all_of_it_is_here(
    world: World, registry: Registry, pulled: str, model: Model
) -> None:
    holds = Holds(2 * MIB, for_good=False)
    registry.proxy.when(asks("GET", pulled, model.digests[1]), holds, times=99)
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(world.pull, registry, pulled)
        assert holds.is_held.wait(30)

        is_visible = world.is_visible(registry, pulled)

        holds.release()
        assert pull.result()[-1] == SUCCESS
    assert not is_visible
    assert world.holds(registry, pulled, model)


def test_a_line_of_a_megabit_is_slow_and_enough(world: World, ours: Registry, small: Model) -> None:
    path = ours.offer(small)
    slow = ours.proxy.when(asks("GET", path, small.digests[0]), Slows(125_000), times=99)

    assert finish(world, ours, path, small) == ""

    assert slow.met
    world.drop(ours, path)


def test_blobs_in_another_store_come_from_there_without_our_credentials(
    world: World, ours: Registry, model: Model
) -> None:
    path, signed = ours.offer(model), SignedAddresses(world.store.url, good_for=10**6)
    world.store.upstream = ours.proxy.upstream
    ours.proxy.when(asks("GET", path, "/blobs/"), signed.sends, times=99)
    world.store.when(signed.gave, signed.keeps, times=99)

    assert finish(world, ours, path, model) == ""

    there = [heard for heard in world.store.heard if signed.gave(heard)]
    assert len(there) >= len(model.digests)
    assert not any(heard.header("Authorization") for heard in there)
    assert any(heard.header("Authorization") for heard in ours.proxy.heard if f"/v2/{path}/" in heard.path)
    world.drop(ours, path)


def test_an_address_that_expires_on_the_way_is_asked_for_anew(world: World, ours: Registry, model: Model) -> None:
    path, signed = ours.offer(model), SignedAddresses(world.store.url, good_for=1)
    world.store.upstream = ours.proxy.upstream
    cuts = CutsAnswer(100_000)
    ours.proxy.when(asks("GET", path, model.digests[0]), signed.sends, times=9999)
    world.store.when(lambda heard: signed.gave(heard) and heard.wants(12 * MIB), cuts)
    world.store.when(signed.gave, signed.keeps, times=9999)

    assert finish(world, ours, path, model) == ""

    assert signed.refused
    world.drop(ours, path)
