"""Everything at once on three nodes for a moment, with one of them killed: nothing is lost, and nothing is left."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks.soak_nodes import NODES, Soak
from benchmarks.soak_nodes_fleet import fleet_of
from benchmarks.soak_nodes_trouble import Pace
from tests.databases import POSTGRES
from tests.s3_server import s3_server

_SECONDS, _CLIENTS = 6.0, 4
_PACE = Pace(kill=(1.5, 3.0), stop=(1.0, 2.0), stopped=(0.5, 2.0), long_share=0.0, gc=(2.0, 4.0))


def test_nothing_is_lost_or_left_of_a_crowd_while_nodes_are_killed() -> None:
    if not POSTGRES:
        pytest.skip("no PostgreSQL: TONNAGE_TEST_POSTGRES names none")
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        s3_server(Path(folder) / "s3") as s3,
        fleet_of(NODES, Path(folder), POSTGRES, s3, is_apart=False) as fleet,
    ):
        outcome = Soak(fleet, fleet.tokens(_CLIENTS)).run(_SECONDS, seed=1, pace=_PACE)

    assert not outcome.faults, outcome.report()
    assert {"manifest", "kill -9 of a node"} <= outcome.tally.counts.keys(), outcome.report()
