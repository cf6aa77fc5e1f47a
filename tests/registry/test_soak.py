"""Everything at once for a moment, and then nothing is left of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.soak import soaking

_SECONDS = 8.0


def test_a_crowd_that_leaves_kills_and_reloads_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, soaking(Path(folder)) as soak:
        outcome = soak.run(_SECONDS, clients=12)

    assert not outcome.faults, outcome.report()
    wanted = {"chat", "embed", "left in a prompt", "left in an answer", "kill -9 of a runner", "nonsense, refused"}
    assert wanted <= outcome.tally.counts.keys(), outcome.report()
