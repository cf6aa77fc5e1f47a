"""Nodes of one database and one bucket, each with a data folder of its own; what they hold, and what they logged."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from auth.tokens import AccessTokens
from benchmarks.fresh_database import fresh_database
from benchmarks.soak_state import held
from storage.db import Database
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.choose import open_driver
from storage.store import Store
from tests.nodes import kill_tree
from tests.s3_server import BUCKET, S3Server
from tests.server import Server, start_server

_CLONE_NEWPID: Final = 0x20000000
_PR_SET_PDEATHSIG: Final = 1
_SETTINGS: Final = {"TONNAGE_WORKERS": "2", "TONNAGE_THREADS": "12", "TONNAGE_STORAGE": "s3"}
_UNTHOUGHT: Final = ("Traceback", "unexpected error", "Exception ignored", "CRITICAL", "Segmentation")
_START_S: Final = 240.0  # on a machine that is busy with everything else, too
_MIB: Final = 2**20


@dataclass
class Node:
    """One server; `host` stays the same however often it is started again. lock: nobody else kills it meanwhile."""

    number: int
    server: Server
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return self.server.host

    def pids(self) -> list[int]:
        return [self.server.process.pid, *self.server.descendants()]

    def kill(self) -> None:
        kill_tree(self.server)


@dataclass
class Fleet:
    """folder: of all their data folders. environ: what they all are told."""

    url: str
    s3: S3Server
    environ: dict[str, str]
    folder: Path
    is_apart: bool
    nodes: list[Node] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        return [node.host for node in self.nodes]

    def start(self, count: int) -> None:
        """All of them at once, on an empty database."""
        with ThreadPoolExecutor(count) as pool:
            servers = list(pool.map(lambda number: self._start(number, "127.0.0.1:0"), range(count)))
        self.nodes = [Node(number, server) for number, server in enumerate(servers)]

    def restart(self, node: Node) -> None:
        """At the same address, with the data folder that it left."""
        host = node.host
        node.server = self._start(node.number, host)

    def tokens(self, count: int) -> list[str]:
        """Access tokens of clients, which every node takes."""
        with self.store() as store:
            create = AccessTokens(store.database).create
            return [create(f"client{number}", scopes=("pull", "push", "delete")) for number in range(count)]

    @contextmanager
    def store(self, *, connections: int = 4) -> Iterator[Store]:
        """What a node has, in this process."""
        database = Database(self.url, connections=connections)
        try:
            yield Store(database, open_driver(self.folder, BucketSettings(BUCKET, endpoint=self.s3.endpoint)))
        finally:
            database.close()

    def memory(self) -> dict[str, float]:
        """MiB that the processes of each role hold now, the largest of each."""
        most: dict[str, float] = {}
        for node in self.nodes:
            for each in held(node.pids()):
                most[each.role] = max(most.get(each.role, 0.0), each.memory_bytes / _MIB)
        return most

    def logged(self) -> list[str]:
        """Lines that tell of an error nobody thought of."""
        lines = (line for node in self.nodes for line in node.server.log.splitlines())
        return [f"log: {line}" for line in lines if any(word in line for word in _UNTHOUGHT)]

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def _start(self, number: int, listen: str) -> Server:
        environ = {**self.environ, "TONNAGE_NODE": f"node{number}"}
        preexec = _in_own_namespace if self.is_apart else None
        data = self.folder / f"node{number}"
        return start_server(data, environ, preexec=preexec, listen=listen, timeout_s=_START_S)


@contextmanager
def fleet_of(count: int, folder: Path, postgresql: str, s3: S3Server, *, is_apart: bool) -> Iterator[Fleet]:
    """Nodes of a fresh database and of the server's bucket. is_apart: each in a process namespace of its own."""
    with fresh_database(postgresql) as url:
        environ = {**_SETTINGS, **s3.environ, "TONNAGE_DATABASE_URL": url}
        environ |= {"TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": s3.endpoint}
        fleet = Fleet(url, s3, environ, folder, is_apart)
        try:
            fleet.start(count)
            yield fleet
        finally:
            fleet.stop()


def _in_own_namespace() -> None:
    """For a child before its exec: it is process 1 of a namespace, as on a machine of its own.

    So no other node sees whether a writer of this one has died: its claims lapse with time.
    """
    system = ctypes.CDLL(None, use_errno=True)
    if system.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    pid = os.fork()
    if pid:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # whoever started us waits until all have closed its pipe
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    system.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
