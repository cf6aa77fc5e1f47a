"""A node is killed in every phase of a push, and the others finish what it began."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client
from tests.nodes import Nodes
from tests.registry.nodes.killed import PHASES, REPOSITORY, Push, killed_amid
from tests.registry.nodes.test_pushes import MANIFEST, manifest


@pytest.fixture(scope="module")
def pushes(folder: Path, nodes: Nodes) -> Iterator[dict[str, Push]]:
    with killed_amid(folder, nodes) as left:
        yield left


@pytest.mark.parametrize("phase", PHASES)
def test_another_node_finishes_what_a_killed_one_began(phase: str, pushes: dict[str, Push], clients: list[Client]):
    push = pushes[phase]

    assert phase == "before the manifest" or push.finish(clients[0]) == 201

    assert [node.request("GET", f"/v2/{REPOSITORY}/blobs/{push.digest}").body == push.data for node in clients] == [
        True
    ] * 3
    raw = manifest(push.data)
    assert clients[1].put_manifest(REPOSITORY, "latest", raw, MANIFEST).status == 201
