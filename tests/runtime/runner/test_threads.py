"""How many processors a control group grants."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.runner.threads import compute_threads, physical_cores, quota

V1 = "3:cpuset:/box\n2:cpu,cpuacct:/box\n0::/\n"
CASES = [
    pytest.param("0::/box/inner\n", {"box/cpu.max": "150000 100000"}, 1.5, id="a level above ours"),
    pytest.param("0::/box\n", {"cpu.max": "300000 100000", "box/cpu.max": "max 100000"}, 3.0, id="max is no limit"),
    pytest.param("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, 2.0, id="the least"),
    pytest.param("0::/box\n", {}, 0.0, id="no limit"),
    pytest.param("0::/box\n", {"box/cpu.max": "nonsense"}, 0.0, id="nonsense"),
    pytest.param("0::/box\n", {"box/cpu.max": "5 0"}, 0.0, id="a period of nothing"),
    pytest.param("garbage\n", {"cpu.max": "100000 100000"}, 1.0, id="a list that cannot be read"),
    pytest.param(
        V1, {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"}, 2.5, id="v1"
    ),
    pytest.param(V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0.0, id="v1 without limit"),
]


@pytest.mark.parametrize(("membership", "files", "processors"), CASES)
def test_the_share_of_processor_time(tmp_path: Path, membership: str, files: dict[str, str], processors: float) -> None:
    (tmp_path / "membership").write_text(membership, encoding="ascii")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n", encoding="ascii")

    assert quota(tmp_path, tmp_path / "membership") == processors


@pytest.mark.parametrize(("granted", "threads"), [(0.0, 16), (0.5, 1), (2.9, 2), (64.0, 16)])
def test_one_thread_for_each_core_that_is_wholly_ours(
    monkeypatch: pytest.MonkeyPatch, granted: float, threads: int
) -> None:
    monkeypatch.setattr("runtime.runner.threads.physical_cores", lambda: 16)
    monkeypatch.setattr("runtime.runner.threads.quota", lambda: granted)

    assert compute_threads() == threads


def test_there_is_a_core() -> None:
    assert physical_cores() >= 1
