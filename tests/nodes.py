"""Several `tonnage serve` that share a database and a bucket and nothing else: data folders and ports are their own."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from registry.config import Config, load_config
from registry.remotes.identity import server_identity
from storage.db import Database
from storage.drivers.choose import open_driver
from storage.store import Store
from tests.databases import postgresql_database
from tests.s3_server import BUCKET, s3_server
from tests.server import Server, is_alive, running_server
from tests.sprayer import sprayer
from tests.waiting import wait_for

ADDRESS = "models.localhost"  # how clients address all of them; what they sign names it
_SMALL = {"TONNAGE_WORKERS": "1", "TONNAGE_THREADS": "16", "TONNAGE_EXTERNAL_URL": f"http://{ADDRESS}"}


@dataclass(frozen=True)
class Nodes:
    """Running nodes. environ: what they have in common. admin_token: the one that they printed together."""

    servers: Sequence[Server]
    environ: Mapping[str, str]

    @property
    def hosts(self) -> list[str]:
        return [server.host for server in self.servers]

    @property
    def admin_token(self) -> str:
        (printed,) = (server.admin_token for server in self.servers if server.admin_token)
        return printed

    def config(self, data: Path) -> Config:
        """Of one more node, without a server."""
        return load_config({"data": str(data)}, self.environ)

    @contextmanager
    def store(self, data: Path) -> Iterator[Store]:
        """What a node of its own does to the common store."""
        config = self.config(data)
        store = Store(Database(config.database_url), open_driver(config.data_path, config.bucket))
        try:
            yield store
        finally:
            store.database.close()


@contextmanager
def shared_backends(folder: Path) -> Iterator[dict[str, str]]:
    """A new database and an empty part of a bucket, as settings. Skips the test where a server of either is missing."""
    with s3_server(folder) as s3, postgresql_database() as database_url:
        yield {
            **s3.environ,
            "TONNAGE_DATABASE_URL": database_url,
            "TONNAGE_STORAGE": "s3",
            "TONNAGE_S3_BUCKET": BUCKET,
            "TONNAGE_S3_PREFIX": secrets.token_hex(4),
            "TONNAGE_S3_ENDPOINT": s3.endpoint,
        }


@contextmanager
def running_nodes(folder: Path, shared: Mapping[str, str], *, count: int = 3) -> Iterator[Nodes]:
    """Nodes that start at the same moment; all their processes end with the block."""
    environ = {**_SMALL, **shared}
    with ExitStack() as held:
        contexts = [
            running_server(folder / f"node{number}", {**environ, "TONNAGE_NODE": f"node{number}"}, is_alone=True)
            for number in range(count)
        ]
        yield Nodes(_enter_together(contexts, held), environ)


@dataclass
class Sprayed(Server):
    """Nodes behind a balancer, as one server. Its process and data folder are those of the first node."""

    nodes: Sequence[Server] = field(default_factory=tuple)

    @property
    def log(self) -> str:
        return "".join(node.log for node in self.nodes)

    def descendants(self) -> list[int]:
        return [pid for node in self.nodes for pid in node.descendants()]

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def stop(self, timeout_s: float = 20) -> int:
        return max(node.stop(timeout_s) for node in self.nodes)


@contextmanager
def running_sprayed(data: Path, environ: Mapping[str, str], *, count: int) -> Iterator[Sprayed]:
    """Nodes that answer at one address, each request by one that is drawn. environ: with the backends they share.

    All have the same port, each at a loopback address of its own, so that what clients sign names every one of them.
    """
    seed = int(os.environ.get("TONNAGE_TEST_SEED") or secrets.randbelow(10**6))
    shared = {"TONNAGE_WORKERS": "1", **environ}
    with sprayer([], seed) as front, ExitStack() as held:
        port = front.host.rpartition(":")[2]
        folders = [data, *(data.with_name(f"{data.name}-node{number}") for number in range(1, count))]
        _share_identity(folders)
        contexts = [
            running_server(
                folder,
                {**shared, "TONNAGE_NODE": f"node{number}"},
                listen=f"127.0.0.{number + 2}:{port}",
                is_alone=True,
            )
            for number, folder in enumerate(folders)
        ]
        nodes = _enter_together(contexts, held)
        front.servers.extend(node.host for node in nodes)
        first, token = nodes[0], next((node.admin_token for node in nodes if node.admin_token), "")
        yield Sprayed(first.process, data, first.log_path, front.host, token, first.environ, nodes)


def _share_identity(folders: Sequence[Path]) -> None:
    """Other servers are to know all nodes as one: the key is copied to each, as the README says."""
    first, *others = (folder / "keys" for folder in folders)
    key = server_identity(first)
    for keys in others:
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        key.save(keys / "id_ed25519")


def _enter_together(contexts: Sequence[AbstractContextManager[Server]], held: ExitStack) -> list[Server]:
    with ThreadPoolExecutor(len(contexts)) as pool:
        begun = [pool.submit(context.__enter__) for context in contexts]
    for context, future in zip(contexts, begun, strict=True):
        if future.exception() is None:
            held.push(context)
    return [future.result() for future in begun]


def kill_tree(server: Server) -> None:
    """kill -9 every process of the node at once, as when the machine goes."""
    pids = [server.process.pid, *server.descendants()]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(10)
    wait_for(lambda: not any(map(is_alive, pids)), 10, "the node's processes to end")
