"""A supervisor in a process of its own, as `tonnage serve` starts it, for tests that lease models from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.messages import Done, GenerateRequest, MemoryNeed, ModelSpec
from runtime.options import LoadOptions, SampleOptions
from runtime.supervisor.client import Supervisor
from runtime.supervisor.lease import Lease

ROOT = Path(__file__).parent.parent


@dataclass
class Supervised:
    """A running supervisor and the way to it."""

    process: subprocess.Popen[bytes]
    run_dir: Path
    client: Supervisor


def start_supervisor(run_dir: Path, **settings: Any) -> Supervised:
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.supervisor", "--run-dir", str(run_dir)], stdin=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    told = {"parent": os.getpid(), "num_parallel": 4, "grace_s": 2.0, **settings}
    process.stdin.write(json.dumps(told).encode())
    process.stdin.close()
    return Supervised(process, run_dir, Supervisor(run_dir))


@contextmanager
def supervised(run_dir: Path, **settings: Any) -> Iterator[Supervised]:
    running = start_supervisor(run_dir, **settings)
    try:
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(15)
        finally:
            running.process.kill()


def spec_of(
    path: Path, *, identity: str = "", name: str = "", embeds: bool = False, size: int = 0, **load: Any
) -> ModelSpec:
    """How the registry would describe the file at `path`. size: bytes it claims to need, beside a small cache."""
    return ModelSpec(
        identity=identity or path.name,
        path=str(path),
        options=LoadOptions(**{"num_ctx": 512, **load}),
        memory=MemoryNeed(weights_bytes=size or path.stat().st_size, kv_bytes_per_token=0, compute_bytes=0),
        trained_context=2048,
        name=name or path.stem,
        digest="0" * 64,
        is_embedding=embeds,
    )


def request(prompt: str, *, tokens: int = 32, **options: Any) -> GenerateRequest:
    """A greedy request for so many tokens."""
    return GenerateRequest(prompt, SampleOptions(**{"temperature": 0.0, "num_predict": tokens, **options}))


ENDLESS = request("hello", tokens=-1, temperature=1.0)


def answer(lease: Lease, asked: GenerateRequest) -> tuple[str, Done]:
    """The whole text and the statistics."""
    *pieces, done = lease.generate(asked)
    assert isinstance(done, Done)
    return "".join(piece.text for piece in pieces if not isinstance(piece, Done)), done


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(fact: Callable[[], bool], *, within_s: float = 5.0) -> bool:
    """Whether `fact` becomes true in time."""
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runner_pid(client: Supervisor, name: str = "tiny") -> int:
    """The process of the one runner of that name."""
    (pid,) = [loaded.pid for loaded in client.ps() if loaded.name == name]
    return pid
