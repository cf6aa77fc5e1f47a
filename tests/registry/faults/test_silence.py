"""Registries that say nothing any more, and registries that are gone."""

from __future__ import annotations

import pytest

from tests.docker_registry import COMMAND
from tests.registry.faults.long_ones import LongOnes
from tests.registry.faults.world import MIB, SUCCESS, Registry, World


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_body_that_lies_still_is_taken_up_again(
    world: World, registry: Registry, long_ones: LongOnes, verb: str
) -> None:
    silent = long_ones.silent[registry.make, verb]

    assert silent.error == ""

    if verb == "pull":
        assert world.holds(registry, silent.path, silent.model)
    else:
        assert registry.holds(silent.path, silent.model)


def test_nobody_there_is_said_in_one_line_and_the_next_pull_goes_on(world: World, long_ones: LongOnes) -> None:
    deserted = long_ones.deserted
    if deserted is None:
        pytest.skip(f"{COMMAND} is not installed")
    registry, path, digest = deserted.registry, deserted.path, deserted.model.digests[0]

    assert deserted.error.startswith(f"cannot connect to {registry.proxy.url}")
    assert not world.is_visible(registry, path)
    before = registry.proxy.traffic("GET", digest).down
    assert world.pull(registry, path)[-1] == SUCCESS

    assert world.holds(registry, path, deserted.model)
    assert registry.proxy.traffic("GET", digest).down - before <= 12 * MIB - 500_000
