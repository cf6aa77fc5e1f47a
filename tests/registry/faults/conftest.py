"""Two servers, a registry of another make, and their proxies, shared by every test: each takes a name of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker_registry import COMMAND, is_missing
from tests.registry.faults.long_ones import LongOnes
from tests.registry.faults.world import MIB, Model, Registry, World, world_of


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(tmp_path_factory.mktemp("faults"), has_docker=not is_missing()) as running:
        yield running


@pytest.fixture(scope="package", autouse=True)
def long_ones(world: World) -> Iterator[LongOnes]:
    """Transfers that take as long as a server's patience; they begin here, and their tests come last."""
    with LongOnes(world) as running:
        yield running


@pytest.fixture(params=["tonnage", "docker"])
def registry(request: pytest.FixtureRequest, world: World) -> Registry:
    if request.param not in world.registries:
        pytest.skip(f"{COMMAND} is not installed")
    return world.registries[request.param]


@pytest.fixture
def ours(world: World) -> Registry:
    return world.registries["tonnage"]


@pytest.fixture(scope="session")
def model() -> Model:
    """Large enough for several parts."""
    return Model((24 * MIB, 3 * MIB, 70_000))


@pytest.fixture(scope="session")
def small() -> Model:
    return Model((192 * 1024, 100))
