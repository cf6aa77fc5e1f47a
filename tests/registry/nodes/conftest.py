"""Three nodes, started at the same moment on an empty database, for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client
from tests.databases import POSTGRES
from tests.nodes import Nodes, running_nodes, shared_backends


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="package")
def shared(folder: Path) -> Iterator[dict[str, str]]:
    """The settings that all nodes have in common."""
    if not POSTGRES and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL: TONNAGE_TEST_POSTGRES names none")
    with shared_backends(folder / "backends") as environ:
        yield environ


@pytest.fixture(scope="package")
def nodes(folder: Path, shared: dict[str, str]) -> Iterator[Nodes]:
    with running_nodes(folder, shared) as running:
        yield running


@pytest.fixture(scope="package")
def clients(nodes: Nodes) -> list[Client]:
    """One for each node, with the token that one of them printed."""
    return [Client(host, nodes.admin_token) for host in nodes.hosts]
