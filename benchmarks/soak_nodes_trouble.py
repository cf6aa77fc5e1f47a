"""What befalls nodes: all of one killed at once and started again, a process that stands still, two sweeps at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from benchmarks.soak_load import Tally
from benchmarks.soak_nodes_fleet import Fleet
from benchmarks.soak_nodes_tidy import Hurried
from tests.server import ROOT

_LONG_S: Final = (33.0, 42.0)  # longer than a claim on an upload lasts
_GC_END_S: Final = 240.0
_TIDY_S: Final = 2.0
_LOOK_S: Final = 2.0
_JOIN_S: Final = 300.0  # a node may be starting
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two of the same kind, from and to; stopped: how long a process stands still.

    long_share: of those that stand still for longer than a claim lasts.
    """

    kill: Span = (8.0, 18.0)
    stop: Span = (10.0, 20.0)
    stopped: Span = (1.0, 6.0)
    long_share: float = 0.2
    gc: Span = (10.0, 20.0)


class Trouble:
    """Threads that go on until `end`; each draws what it does from a seed of its own."""

    def __init__(self, fleet: Fleet, tally: Tally, seed: int, pace: Pace) -> None:
        self._fleet, self._tally, self._seed, self._pace = fleet, tally, seed, pace
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.memory: dict[str, float] = {}
        self.connections = 0

    def begin(self) -> None:
        for work in (self._kill, self._stand_still, self._sweep_twice, self._tidy, self._look):
            draw = random.Random(f"{self._seed} {work.__name__}")
            self._threads.append(threading.Thread(target=self._run, args=(work, draw), name=work.__name__))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Return when every node is there and runs."""
        self._over.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
            if thread.is_alive():
                self._tally.wonder(f"{thread.name} does not end")

    def _run(self, work: Callable[[random.Random], None], draw: random.Random) -> None:
        while not self._over.is_set():
            try:
                work(draw)
            except Exception as error:  # whatever it is, it belongs into the report
                self._tally.wonder(f"{work.__name__}: {error!r}")
                self._over.wait(1)

    def _kill(self, draw: random.Random) -> None:
        if self._over.wait(draw.uniform(*self._pace.kill)):
            return
        node = draw.choice(self._fleet.nodes)
        with node.lock:
            node.kill()
            self._tally.add("kill -9 of a node")
            self._over.wait(draw.uniform(0, 3))
            self._fleet.restart(node)

    def _stand_still(self, draw: random.Random) -> None:
        """A web process that the kernel does not run for a while; what it had begun it goes on with."""
        if self._over.wait(draw.uniform(*self._pace.stop)):
            return
        node, is_long = draw.choice(self._fleet.nodes), draw.random() < self._pace.long_share
        workers = node.server.processes("registry.workers")[1:]  # the first one is their parent
        if not workers:
            return
        pid = draw.choice(workers)
        try:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._tally.add(f"web process stopped for {'more than a claim' if is_long else 'seconds'}")
            self._over.wait(draw.uniform(*(_LONG_S if is_long else self._pace.stopped)))
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _sweep_twice(self, draw: random.Random) -> None:
        """`tonnage gc` on two nodes at the same time."""
        if self._over.wait(draw.uniform(*self._pace.gc)):
            return
        pair = draw.sample(self._fleet.nodes, min(2, len(self._fleet.nodes)))
        threads = [threading.Thread(target=self._gc, args=(node.number,)) for node in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _gc(self, number: int) -> None:
        server = self._fleet.nodes[number].server
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "registry", "gc", "--orphans"],
            env={**os.environ, **server.environ, "TONNAGE_DATA": str(server.data)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=_GC_END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it tells where it stands
            said, _ = process.communicate()
        self._tally.add("tonnage gc")
        if process.returncode or "Traceback" in said:
            self._tally.wonder(f"tonnage gc: {process.returncode} {said[-3000:]}")

    def _tidy(self, draw: random.Random) -> None:
        """A janitor for whom a day is a minute."""
        if self._over.wait(_TIDY_S * draw.uniform(0.5, 1.5)):
            return
        with self._fleet.store() as store:
            for what, count in Hurried(store).turn().items():
                self._tally.add(f"janitor took: {what}", count)

    def _look(self, _draw: random.Random) -> None:
        if self._over.wait(_LOOK_S):
            return
        for role, size in self._fleet.memory().items():
            self.memory[role] = max(self.memory.get(role, 0.0), size)
        with self._fleet.store(connections=1) as store, store.database.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            self.connections = max(self.connections, connection.exec_driver_sql(query).scalar_one() - 1)
