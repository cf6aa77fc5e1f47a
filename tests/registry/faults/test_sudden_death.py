"""kill -9 of either server in the middle of transfers: they go on from what had come, and end with the right bytes.

A moment is a count of bytes: the proxy lets no more of a blob through, and when all transfers stand, the server dies.
"""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from tests.backends import ON_S3
from tests.faults import Gate
from tests.registry.faults.long_ones import LongOnes
from tests.registry.faults.world import JSON, MIB, SUCCESS, Model, Registry, World, asks
from tests.server import is_alive, start_server, wait_for

ROUNDS = int(os.environ.get("TONNAGE_TEST_KILLS", "1"))  # each is four moments of pulls, and four of pushes
SEED = int(os.environ.get("TONNAGE_TEST_SEED", "0")) or random.randrange(1, 10**6)
SIZE = 48 * MIB
UNSETTLED = 8 * MIB  # on the way, or read ahead, for a blob of any size


@dataclass
class Transfer:
    """One blob's pull or push, which stands when `gate` has let so many bytes through."""

    verb: str
    registry: Registry
    path: str
    model: Model
    gate: Gate
    lines: Future[list[JSON]] = field(init=False)

    def is_whole(self, world: World) -> bool:
        if self.verb == "pull":
            return world.holds(self.registry, self.path, self.model)
        return self.registry.holds(self.path, self.model)

    @property
    def sent_again(self) -> int:
        traffic = self.registry.proxy.traffic(path=f"/v2/{self.path}/blobs/")
        return traffic.down + traffic.up - sum(map(len, self.model.blobs.values()))


@pytest.fixture
def quiet(world: World, long_ones: LongOnes) -> World:
    """Nobody else is at the servers any more."""
    long_ones.wait()
    return world


@pytest.mark.parametrize("victim", ["near", "far"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_transfers_go_on_after_a_kill(quiet: World, number: int, victim: str) -> None:
    chance = random.Random(f"{SEED} {number} {victim}")
    transfers = [
        prepared(quiet, verb, passed=chance.randrange(half * SIZE // 2, (half + 1) * SIZE // 2))
        for verb in ("pull", "push")
        for half in range(2)
    ]

    kill_during(quiet, victim, transfers)

    for each in transfers:
        print(f"seed {SEED}: {each.verb}, {victim} killed at {each.gate.after}: {each.sent_again} bytes sent again")
        assert each.is_whole(quiet)
        if not ON_S3:  # what a bucket has is told of every 64 MiB, more than these blobs have
            assert each.sent_again <= UNSETTLED


def prepared(world: World, verb: str, *, passed: int) -> Transfer:
    registry, model, gate = world.registries["tonnage"], Model((SIZE,)), Gate(passed)
    path = registry.offer(model) if verb == "pull" else world.prepare(registry, model)
    part = model.digests[0] if verb == "pull" else "/blobs/uploads/"
    registry.proxy.when(asks("GET" if verb == "pull" else "PATCH", path, part), gate, times=10**6)
    return Transfer(verb, registry, path, model, gate)


def kill_during(world: World, victim: str, transfers: list[Transfer]) -> None:
    """All of them under way, then the kill; each may go on by itself, or is asked for again."""
    with ThreadPoolExecutor(len(transfers)) as pool:
        for each in transfers:
            each.lines = pool.submit(attempt, world, each)
        for each in transfers:
            assert each.gate.is_held.wait(60)
        kill_and_restart(world, victim)
        for each in transfers:
            each.gate.release()
        ended = [each for each in transfers if each.lines.result()[-1] != SUCCESS]
        again = list(pool.map(lambda each: attempt(world, each), ended))
    assert all(lines[-1] == SUCCESS for lines in again)


def attempt(world: World, each: Transfer) -> list[JSON]:
    with suppress(OSError):  # the server that was asked has died
        return (world.pull if each.verb == "pull" else world.push)(each.registry, each.path)
    return [{}]


def kill_and_restart(world: World, victim: str) -> None:
    """Every process of it at once."""
    server = {"near": world.near, "far": world.far}[victim]
    below = server.descendants()
    for pid in (server.process.pid, *below):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(10)
    wait_for(lambda: not any(map(is_alive, below)), 20, "the server's processes to end")
    again = start_server(server.data, server.environ)
    server.process, server.host = again.process, again.host
    if victim == "far":
        world.registries["tonnage"].client.host = server.host
        world.registries["tonnage"].proxy.upstream = server.host
