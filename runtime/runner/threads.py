"""How many threads compute: one for each physical core that is ours.

Two on one core only get in each other's way, and of those beyond a container's share of time, each waits at the end of
every operation for one that the kernel holds back. Shares are rounded down: web workers get what is left, as they get
the second thread of each core; they wait for tokens most of the time, and what they do with one is soon done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")


def compute_threads() -> int:
    """Physical cores that this process may run on, or as many as its share of processor time keeps at work."""
    granted = quota()
    return max(min(physical_cores(), int(granted)), 1) if granted > 0 else physical_cores()


def physical_cores() -> int:
    """Cores this process may run on, counting one that runs two threads once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(len(siblings), 1)


def quota(groups: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """How many processors' time the control groups grant, all levels considered; 0 where none says.

    groups: where they are mounted. membership: the file that names ours, `hierarchy:controllers:path` a line.
    """
    shares = [share for limit in _limits(groups, membership) if (share := _share(limit)) > 0]
    return min(shares, default=0.0)


def _limits(groups: Path, membership: Path) -> Iterator[str]:
    """What each level says, as `quota period`."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "", "/")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = PurePosixPath(path).parts[1:]
        for depth in range(len(parts) + 1):
            level = "/".join(parts[:depth])
            if not controllers:
                yield _read(groups / level / "cpu.max")
                continue
            for mount in (controllers, "cpu"):
                base = groups / mount / level
                yield f"{_read(base / 'cpu.cfs_quota_us')} {_read(base / 'cpu.cfs_period_us')}"


def _share(limit: str) -> float:
    """`50000 100000` is half a processor; `max 100000` and `-1 100000` are no limit."""
    match limit.split():
        case [granted, period] if granted.isdecimal() and period.isdecimal() and int(period):
            return int(granted) / int(period)
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)
