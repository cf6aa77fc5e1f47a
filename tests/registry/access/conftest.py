"""The three ways to be reached, each with a server that all tests here share; none may change what it holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.access.world import World, serve


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Keyed, listening on every address: nobody who connects is from this machine."""
    with serve(tmp_path_factory.mktemp("network") / "data", listen="0.0.0.0:0") as world:
        yield world


@pytest.fixture(scope="package")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serve(tmp_path_factory.mktemp("loopback") / "data") as world:
        yield world


@pytest.fixture(scope="package")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """TONNAGE_ACCESS=open."""
    with serve(tmp_path_factory.mktemp("open") / "data", {"TONNAGE_ACCESS": "open"}) as world:
        yield world
