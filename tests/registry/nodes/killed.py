"""Pushes that a node was in the middle of when all its processes were killed."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.client import Client
from tests.exchange import Dropped, Fault, Heard, Said
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.faults import Holds
from tests.nodes import Nodes, kill_tree, running_nodes
from tests.server import Server
from tests.waiting import wait_for

REPOSITORY = "team/killed"
_LARGE = 17 * 2**20  # a part of the bucket's, and a tail
_WAIT_S = 60.0


@dataclass
class Push:
    """What a client knows of its push. path: of the session; is_asked: whether it has sent the closing PUT."""

    data: bytes
    path: str
    is_asked: bool = False

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def close(self, node: Client) -> int:
        return node.request("PUT", f"{self.path}?digest={self.digest}", b"").status

    def finish(self, node: Client) -> int:
        """As a client does that lost its connection: ask how far it is, send the rest, close."""
        if not self.is_asked:
            told = node.request("GET", self.path)
            assert told.status == 204, told.body
            offset = int(told.headers["X-Upload-Offset"])
            if offset < len(self.data):
                headers = {"Content-Range": f"{offset}-{len(self.data) - 1}"}
                answer = node.request("PATCH", self.path, self.data[offset:], headers)
                assert answer.status == 202, answer.body
        return self.close(node)


def begin(node: Client, size: int) -> Push:
    answer = node.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"")
    return Push(os.urandom(size), urlsplit(answer.headers["Location"]).path)


@dataclass
class HoldsTheAnswer(Fault):
    """Once the server has given it; it is lost then."""

    is_held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def said(self, said: Said) -> Said:
        self.is_held.set()
        self.go.wait(_WAIT_S)
        raise Dropped

    def release(self) -> None:
        self.go.set()


class Victim:
    """A node that reaches the bucket through a proxy, and so can be held where it is to be killed."""

    def __init__(self, server: Server, proxy: FaultProxy, token: str) -> None:
        self.server, self.client, self._proxy = server, Client(server.host, token), proxy

    def opened(self) -> Push:
        """The session is there, and nothing else."""
        return begin(self.client, 1000)

    def amid_a_chunk(self) -> Push:
        """One chunk is stored; of the next one a part has reached the bucket, and the client is still sending."""
        push = begin(self.client, 2 * _LARGE)
        first = self.client.request("PATCH", push.path, push.data[:1000], {"Content-Range": "0-999"})
        assert first.status == 202, first.body
        connection = http.client.HTTPConnection(self.client.host)
        connection.putrequest("PATCH", push.path)
        told = {"Content-Length": len(push.data) - 1000, "Content-Range": f"1000-{len(push.data) - 1}"}
        for name, value in {"Authorization": f"Bearer {self.client.token}", **told}.items():
            connection.putheader(name, str(value))
        connection.endheaders(push.data[1000 : _LARGE + 2**20])
        wait_for(lambda: any("partNumber" in each.target for each in self._proxy.heard), _WAIT_S, "a part to be sent")
        self._connection = connection  # until the node is killed
        return push

    def before_the_closing(self) -> Push:
        """Every byte is stored, and the client has not said so yet."""
        push = begin(self.client, 100_000)
        assert self.client.request("PATCH", push.path, push.data).status == 202
        return push

    def amid_a_commit(self) -> Push:
        """The node asks the bucket to make the parts an object, and the bucket never hears it."""
        return self._closing(Holds())

    def behind_the_bucket(self) -> Push:
        """The bucket has made the object, and the node never hears it."""
        return self._closing(HoldsTheAnswer())

    def before_the_manifest(self) -> Push:
        """The blob is there, and no manifest lists it."""
        push = begin(self.client, 1000)
        assert push.finish(self.client) == 201
        return push

    def _closing(self, fault: Holds | HoldsTheAnswer) -> Push:
        push = begin(self.client, _LARGE)
        assert self.client.request("PATCH", push.path, push.data).status == 202
        self._proxy.when(_completes, fault)

        def close() -> None:
            with suppress(OSError, http.client.HTTPException):  # the node is killed over it
                push.close(self.client)

        threading.Thread(target=close, daemon=True).start()
        assert fault.is_held.wait(_WAIT_S)
        push.is_asked = True
        return push


def _completes(heard: Heard) -> bool:
    return heard.method == "POST" and "uploadId=" in heard.target


PHASES: dict[str, Callable[[Victim], Push]] = {
    "opened": Victim.opened,
    "amid a chunk": Victim.amid_a_chunk,
    "before the closing": Victim.before_the_closing,
    "amid a commit": Victim.amid_a_commit,
    "behind the bucket": Victim.behind_the_bucket,
    "before the manifest": Victim.before_the_manifest,
}


@contextmanager
def killed_amid(folder: Path, nodes: Nodes) -> Iterator[dict[str, Push]]:
    """One more node, killed while it has a push in every phase."""
    endpoint = nodes.environ["TONNAGE_S3_ENDPOINT"].removeprefix("http://")
    with fault_proxy(endpoint) as proxy:
        shared = {**nodes.environ, "TONNAGE_S3_ENDPOINT": proxy.url}
        with running_nodes(folder / "victim", shared, count=1) as alone:
            victim = Victim(alone.servers[0], proxy, nodes.admin_token)
            pushes = {phase: bring(victim) for phase, bring in PHASES.items()}
            kill_tree(victim.server)
            proxy.stop()
            yield pushes
