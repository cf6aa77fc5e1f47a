"""Pushes of a server through everything that a network and a registry may do: the right bytes, or one clear line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from registry.remotes.uploads import PART_BYTES
from tests.client import DOCKER_MANIFEST
from tests.exchange import Fault
from tests.faults import CutsRequest, Flips, Loses, Misleads, Redirects, Says, Slows
from tests.registry.faults.world import MIB, SUCCESS, Model, Registry, World, asks, error_of


def finish(world: World, registry: Registry, path: str, model: Model) -> str:
    """Push; where that fails, nothing is to be seen there, and a second push succeeds. What the first one said."""
    error = error_of(world.push(registry, path))
    if error:
        assert not is_visible(registry, path)
        assert world.push(registry, path)[-1] == SUCCESS
    assert registry.holds(path, model)
    return error


def is_visible(registry: Registry, path: str) -> bool:
    headers = {"Accept": DOCKER_MANIFEST}
    return registry.client.request("GET", f"/v2/{path}/manifests/v1", headers=headers).status == 200


def sent_again(registry: Registry, path: str, model: Model) -> int:
    """Bytes of blobs that were sent more than once."""
    return registry.proxy.traffic(path=f"/v2/{path}/blobs/").up - sum(map(len, model.blobs.values()))


def test_cuts_cost_next_to_nothing(world: World, registry: Registry, model: Model) -> None:
    path = world.prepare(registry, model)
    of_parts = asks("PATCH", path, "/blobs/uploads/")
    cuts = [registry.proxy.when(of_parts, CutsRequest(after)) for after in (1_200_000, 5 * MIB, 2 * MIB)]

    assert finish(world, registry, path, model) == ""

    assert all(cut.met for cut in cuts)
    if registry.make == "tonnage":  # Docker's own forgets an upload whose last part was cut
        assert sent_again(registry, path, model) < 0.05 * len(model.blobs[model.digests[0]])


def test_of_a_flipped_bit_only_its_part_is_sent_again(world: World, registry: Registry) -> None:
    model, flips = Model((PART_BYTES + 8 * MIB,)), Flips(PART_BYTES + MIB)
    path = world.prepare(registry, model)
    registry.proxy.when(asks("PATCH", path, "/blobs/uploads/"), flips, times=99)

    assert finish(world, registry, path, model) == ""

    assert flips.has_flipped
    if registry.make == "tonnage":  # others do not say what they hold before they have all of it
        assert sent_again(registry, path, model) <= 8 * MIB


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_lost_answer_sends_next_to_nothing_again(world: World, registry: Registry, small: Model, method: str) -> None:
    path = world.prepare(registry, small)
    lost = [
        registry.proxy.when(asks(method, path, "/blobs/uploads/"), Loses()),
        registry.proxy.when(asks("PUT", path, "/manifests/"), Loses()),
    ]

    assert finish(world, registry, path, small) == ""

    assert all(rule.met for rule in lost)
    if registry.make == "tonnage":
        assert sent_again(registry, path, small) < 0.05 * len(small.blobs[small.digests[0]])


def test_a_busy_registry_is_asked_again(world: World, ours: Registry, small: Model) -> None:
    path = world.prepare(ours, small)
    unavailable = Says(503, {"Retry-After": "1"}, b'{"errors":[{"code":"UNAVAILABLE","message":"soon"}]}')
    busy = [
        ours.proxy.when(asks("POST", path, "/blobs/"), unavailable),
        ours.proxy.when(asks("PATCH", path, "/blobs/"), Says(429, {"Retry-After": "1"})),
        ours.proxy.when(asks("PUT", path, "/blobs/"), Says(500)),
        ours.proxy.when(asks("PUT", path, "/manifests/"), Says(500)),
    ]

    assert finish(world, ours, path, small) == ""

    assert all(rule.met for rule in busy)


def test_a_line_of_a_megabit_is_slow_and_enough(world: World, ours: Registry, small: Model) -> None:
    path = world.prepare(ours, small)
    slow = ours.proxy.when(asks("PATCH", path, "/blobs/"), Slows(125_000))

    assert finish(world, ours, path, small) == ""

    assert slow.met


ELSEWHERE: dict[str, tuple[str, Callable[[str], Fault]]] = {
    "parts are redirected": ("PATCH", Redirects),
    "the session lies there": ("POST", Misleads),
    "the commit is redirected": ("PUT", Redirects),
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_what_a_registry_has_elsewhere_never_sees_our_credentials(
    world: World, registry: Registry, small: Model, how: str
) -> None:
    path, (method, fault) = world.prepare(registry, small), ELSEWHERE[how]
    registry.proxy.when(asks(method, path, "/blobs/uploads/"), fault(world.store.url))
    world.store.upstream = registry.proxy.upstream

    finish(world, registry, path, small)

    there = [heard for heard in world.store.heard if f"/v2/{path}/" in heard.path]
    assert there
    assert not any(heard.header("Authorization") for heard in there)


def test_an_inner_address_as_the_place_of_an_upload_is_refused(world: World, registry: Registry, small: Model) -> None:
    path = world.prepare(registry, small)
    registry.proxy.when(asks("POST", path, "/blobs/uploads/"), Misleads("http://169.254.169.254"))

    error = finish(world, registry, path, small)

    assert "TONNAGE_ALLOWED_HOSTS" in error


def test_a_model_of_which_a_part_is_refused_is_not_to_be_seen(world: World, registry: Registry, small: Model) -> None:
    path = world.prepare(registry, small)
    registry.proxy.when(asks("PUT", path, "/blobs/uploads/"), Says(403), skip=1)

    assert finish(world, registry, path, small).startswith("access denied")
