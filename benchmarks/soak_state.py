"""What a server's processes hold: descriptors, threads, memory; and what in it has grown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = {"web": "registry.workers", "supervisor": "runtime.supervisor", "runner": "runtime.runner"}
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """One process. Descriptors by kind: connections of the database's pool come and go, and are counted apart."""

    role: str
    pid: int
    descriptors: dict[str, int]
    threads: int
    memory_bytes: int  # resident, without pages that are only mapped from files

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.descriptors.items()))
        return f"{self.role} {self.pid}: {self.memory_bytes / _MIB:.1f} MiB, {self.threads} threads; open: {kinds}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much more a process may hold than after warming up. threads: of a web worker's pool, started or not."""

    memory_bytes: int
    threads: int
    database_descriptors: int


def held(pids: list[int]) -> list[Held]:
    """Every process of `pids` that is of ours and alive."""
    return [found for pid in pids for found in _held(pid)]


def _held(pid: int) -> Iterator[Held]:
    try:
        folder = Path(f"/proc/{pid}")
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        role = next((role for role, module in MODULES.items() if f"-m {module} " in f"{command} "), "")
        status = (folder / "status").read_text()
        if role:
            yield Held(
                role, pid, _descriptors(folder / "fd"), _number(status, "Threads"), _number(status, "RssAnon") * 1024
            )
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended while it was looked at


def _number(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _descriptors(folder: Path) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for entry in folder.iterdir():
        try:
            kinds[_kind(str(entry.readlink()))] += 1
        except FileNotFoundError:
            continue
    return dict(kinds)


def _kind(target: str) -> str:
    if ".db" in target:
        return "database"
    return target.partition(":")[0] if not target.startswith("/") else "file"


def grown(before: list[Held], after: list[Held], bounds: Bounds) -> list[str]:
    """A line for each thing that a process still holds, and did not before."""
    earlier = {each.pid: each for each in before}
    found = []
    for now in after:
        then = earlier.get(now.pid)
        if then is None:
            continue
        for kind in now.descriptors.keys() | then.descriptors.keys():
            allowed = then.descriptors.get(kind, 0) + (bounds.database_descriptors if kind == "database" else 0)
            if now.descriptors.get(kind, 0) > allowed:
                found.append(f"{now.role} {now.pid}: {now.descriptors[kind]} {kind} descriptors, {allowed} before")
        if now.threads > then.threads + (bounds.threads if now.role == "web" else 0):
            found.append(f"{now.role} {now.pid}: {now.threads} threads, {then.threads} before")
        if now.memory_bytes > then.memory_bytes + bounds.memory_bytes:
            more = (now.memory_bytes - then.memory_bytes) / _MIB
            found.append(f"{now.role} {now.pid}: {more:.1f} MiB more than after warming up")
    return found
