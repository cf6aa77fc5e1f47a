"""Two nodes tidy up at once while clients push, and one is killed over it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from auth.tokens import AccessTokens
from registry.janitor import tidy
from storage.layout import BLOBS
from storage.models import Object
from storage.reference import RepositoryName
from storage.store import Store
from tests.exchange import Dropped, Heard
from tests.fault_proxy import fault_proxy
from tests.faults import Holds
from tests.nodes import Nodes
from tests.registry.pushers import Pusher
from tests.server import ROOT
from tests.sprayer import sprayer
from tests.waiting import wait_for

PUSHERS, PUSHES = 3, 6
NAME = RepositoryName("team/unwanted")
TIDYING = ("tonnage.janitor", "tonnage.gc", "tonnage.objects")
_WAIT_S = 60.0
_TRIES = 5


class Sweeper(threading.Thread):
    """A node's janitor without its pauses; what it raises is a failure."""

    def __init__(self, store: Store, done: threading.Event) -> None:
        super().__init__()
        self._store, self._done = store, done
        self.turns, self.failure = 0, None

    def run(self) -> None:
        try:
            while not self._done.is_set():
                tidy(self._store)
                self.turns += 1
        except BaseException as failure:
            self.failure = failure
            raise


@pytest.fixture
def stores(nodes: Nodes, tmp_path: Path) -> Iterator[list[Store]]:
    """Two more nodes' views of the common store."""
    with ExitStack() as held:
        yield [held.enter_context(nodes.store(tmp_path / name)) for name in ("one", "other")]


def unclaimed(store: Store) -> set[str]:
    """Keys of bytes without a row, and of rows without bytes."""
    with store.database.connect() as connection:
        rows = set(connection.execute(select(Object.storage_key)).scalars())
    return rows ^ set(store.driver.keys(BLOBS))


def test_nothing_is_lost_while_two_nodes_sweep_and_clients_push(nodes: Nodes, stores: list[Store], caplog) -> None:
    done, tokens = threading.Event(), AccessTokens(stores[0].database)
    sweepers = [Sweeper(store, done) for store in stores]
    with sprayer(nodes.hosts, seed=9) as front:
        secrets = [tokens.create(f"pusher{number}", scopes=["push", "delete"]) for number in range(PUSHERS)]
        pushers = [Pusher(front.host, each, number, pushes=PUSHES) for number, each in enumerate(secrets)]
        for thread in (*sweepers, *pushers):
            thread.start()
        for thread in pushers:
            thread.join(_WAIT_S)
        done.set()
        for thread in sweepers:
            thread.join(_WAIT_S)

    assert not any(thread.is_alive() for thread in (*sweepers, *pushers))
    assert [failure for pusher in pushers for failure in pusher.failures] == []
    assert [sweeper.failure for sweeper in sweepers] == [None, None]
    assert all(sweeper.turns for sweeper in sweepers)
    assert set(front.drawn) == set(nodes.hosts)
    wait_for(lambda: not unclaimed(stores[0]), _WAIT_S, "every key to have its row, and every row its key")
    told = [record for record in caplog.records if record.name in TIDYING and record.levelname == "WARNING"]
    assert [record.getMessage() for record in told] == []


def test_what_a_killed_gc_had_begun_another_node_ends(nodes: Nodes, stores: list[Store], tmp_path: Path) -> None:
    key = killed_over(nodes, stores[0], tmp_path / "gc")

    swept = [store.collector.sweep().objects for store in (*stores, *stores)]

    assert sum(swept) <= 1  # a node's own janitor may have been faster
    wait_for(lambda: not unclaimed(stores[0]), _WAIT_S, "every key to have its row, and every row its key")
    assert key not in set(stores[0].driver.keys(BLOBS))


def killed_over(nodes: Nodes, store: Store, data: Path) -> str:
    """The key of an object that a `tonnage gc` had marked, and was about to delete when it was killed."""
    with fault_proxy(nodes.environ["TONNAGE_S3_ENDPOINT"].removeprefix("http://")) as proxy:
        held = HoldsDeletes()
        proxy.when(lambda heard: heard.method == "DELETE", held)
        told = {**os.environ, **nodes.environ, "TONNAGE_S3_ENDPOINT": proxy.url, "TONNAGE_DATA": str(data)}
        for _ in range(_TRIES):  # the janitor of a node may take what is meant for this one
            blob = store.blobs.put(NAME, b"nobody wants this")
            store.blobs.unlink(NAME, blob.digest)
            with subprocess.Popen([sys.executable, "-m", "registry", "gc"], env=told, cwd=ROOT) as gc:
                if is_about_to_delete(gc, held):
                    gc.kill()
                    return blob.key
    raise AssertionError("others took all that was unwanted")


def is_about_to_delete(gc: subprocess.Popen[bytes], held: HoldsDeletes) -> bool:
    """Rather than done, with nothing to delete."""
    wait_for(lambda: held.is_held.is_set() or gc.poll() is not None, _WAIT_S, "gc to delete something, or to end")
    return held.is_held.is_set()


class HoldsDeletes(Holds):
    """A request without a body, of which the server never hears."""

    def heard(self, heard: Heard) -> Heard:
        self.is_held.set()
        self.go.wait(_WAIT_S)
        raise Dropped
