"""The client commands through faults: a file of the right bytes, or one clear line and a file that goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client import Client, file_digest
from tests.faults import CutsAnswer, CutsRequest, Flips, Loses, Says
from tests.registry.faults.world import MIB, Model, Registry, World, asks, fresh_path
from tests.server import ROOT
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture
def token(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(world.far.admin_token)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model with a long tail, which no two tests share."""
    path = write_tiny_gguf(tmp_path / "weights.gguf")
    with path.open("ab") as file:
        file.write(os.urandom(16 * MIB))
    return path


def tonnage(folder: Path, registry: Registry, *arguments: str) -> tuple[int, str]:
    """Exit status of the command in a home of its own, and the last line that it said."""
    finished = subprocess.run(
        [sys.executable, "-m", "registry", *arguments, "--server", registry.proxy.url],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder), "TONNAGE_DATA": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return finished.returncode, finished.stderr.splitlines()[-1]


def pull(folder: Path, registry: Registry, path: str, token: Path) -> tuple[int, str]:
    return tonnage(folder, registry, "pull", f"{path}:v1", "-o", "out.gguf", "--token-file", str(token))


def push(registry: Registry, weights: Path, path: str, token: Path) -> tuple[int, str]:
    return tonnage(weights.parent, registry, "push", str(weights), f"{path}:v1", "--token-file", str(token))


def test_a_pull_that_is_cut_and_refused_goes_on(ours: Registry, model: Model, token: Path, tmp_path: Path) -> None:
    path, digest = ours.offer(model), model.digests[0]
    of_it = asks("GET", path, digest)
    faults = [ours.proxy.when(of_it, fault) for fault in (CutsAnswer(5 * MIB), Says(503), CutsAnswer(0))]

    status, said = pull(tmp_path, ours, path, token)

    assert status == 0, said
    assert all(fault.met for fault in faults)
    assert (tmp_path / "out.gguf").read_bytes() == model.blobs[digest]
    assert ours.proxy.traffic("GET", f"/v2/{path}/blobs/{digest}").down < 1.05 * len(model.blobs[digest])


def test_a_pull_of_a_flipped_bit_leaves_no_file_of_other_bytes(
    ours: Registry, model: Model, token: Path, tmp_path: Path
) -> None:
    path, flips = ours.offer(model), Flips(10 * MIB)
    ours.proxy.when(asks("GET", path, model.digests[0]), flips, times=99)

    status, said = pull(tmp_path, ours, path, token)

    assert flips.has_flipped
    if status:
        assert said.startswith("tonnage: ")
        assert not (tmp_path / "out.gguf").exists()
        assert pull(tmp_path, ours, path, token)[0] == 0
    assert (tmp_path / "out.gguf").read_bytes() == model.blobs[model.digests[0]]


def test_a_push_that_is_cut_and_loses_answers_goes_on(ours: Registry, weights: Path, token: Path) -> None:
    path = fresh_path()
    faults = [
        ours.proxy.when(asks("PATCH", path, "/blobs/"), CutsRequest(5 * MIB)),
        ours.proxy.when(asks("PATCH", path, "/blobs/"), Loses()),
        ours.proxy.when(asks("PUT", path, "/manifests/"), Loses()),
    ]

    status, said = push(ours, weights, path, token)

    assert status == 0, said
    assert all(fault.met for fault in faults)
    assert holds(ours.client, path, weights)
    assert ours.proxy.traffic(path=f"/v2/{path}/blobs/").up < 1.05 * weights.stat().st_size


def test_a_push_of_a_flipped_bit_ends_with_the_files_own_bytes(ours: Registry, weights: Path, token: Path) -> None:
    path, flips = fresh_path(), Flips(10 * MIB)
    ours.proxy.when(asks("PATCH", path, "/blobs/"), flips, times=99)

    status, said = push(ours, weights, path, token)

    assert status == 0, said
    assert flips.has_flipped
    assert holds(ours.client, path, weights)


def holds(client: Client, path: str, weights: Path) -> bool:
    return client.request("GET", f"/v2/{path}/blobs/{file_digest(weights)}").body == weights.read_bytes()
