"""Real nodes, on one database and one bucket, behind each proxy. The third that they are told of is dead."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auth.keys import PrivateKey
from tests.client import Answer, Client
from tests.databases import POSTGRES
from tests.deploy.proxies import KINDS, Proxy, free_port, running_proxy
from tests.nodes import Nodes, running_nodes, shared_backends
from tests.ollama_client import LocalStore, Registry
from tests.ollama_flows import Pull, Push
from tests.registry.ollama_world import CONFIG, LAYERS, without_newline
from tests.tiny_gguf import write_tiny_gguf

URL = "http://models.test"
MIB = 2**20
NAMES = [f"acme/tiny:{number}" for number in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploy")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    if not POSTGRES:
        pytest.skip("no PostgreSQL: TONNAGE_TEST_POSTGRES names none")
    told = {"TONNAGE_EXTERNAL_URL": URL, "TONNAGE_TRUSTED_PROXIES": "127.0.0.1", "OLLAMA_CONTEXT_LENGTH": "512"}
    with shared_backends(folder / "backends") as shared, running_nodes(folder, {**shared, **told}, count=2) as running:
        running.servers[0].run("namespace", "create", "acme")
        yield running


@dataclass(frozen=True)
class Front:
    """A proxy, and clients that know the nodes by its name alone."""

    proxy: Proxy
    admin: Client

    def registry(self, key: PrivateKey) -> Registry:
        return Registry(URL, key, dial={urlsplit(URL).netloc: self.proxy.host})

    def send(self, method: str, location: str, body: object = None, **headers: str) -> Answer:
        """To a path, or to an address that an answer named."""
        told = {"Host": urlsplit(URL).netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
        is_chunked = not isinstance(body, bytes | None) and "Content-Length" not in told
        return self.admin.request(method, location.removeprefix(URL), body, told, chunked=is_chunked)  # type: ignore[arg-type]

    def generate(self, model: str) -> Answer:
        body = {"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": 2, "seed": 1}}
        answer = self.admin.post_json("/api/generate", body)
        assert answer.status == 200, answer.body
        return answer


@pytest.fixture(scope="module", params=KINDS)
def front(request: pytest.FixtureRequest, nodes: Nodes, folder: Path) -> Iterator[Front]:
    with _front(request.param, folder / request.param, nodes) as running:
        yield running


@contextmanager
def _front(kind: str, folder: Path, nodes: Nodes) -> Iterator[Front]:
    with running_proxy(kind, folder, [*nodes.hosts, f"127.0.0.1:{free_port()}"]) as proxy:
        yield Front(proxy, Client(proxy.host, nodes.admin_token))


@pytest.fixture(scope="module")
def models(nodes: Nodes, folder: Path) -> list[str]:
    """Names of one model that runs."""
    client, weights = Client(nodes.hosts[0], nodes.admin_token), write_tiny_gguf(folder / "tiny.gguf")
    for name in NAMES:
        repository, _, tag = name.partition(":")
        client.push_model(repository, tag, weights)
    return NAMES


@pytest.fixture(scope="module")
def key(nodes: Nodes, folder: Path) -> PrivateKey:
    """One that may push."""
    made, path = PrivateKey.generate(), folder / "key.pub"
    path.write_text(f"{made.public.line}\n")
    nodes.servers[1].run("key", "add", "acme", str(path), "--role", "push")
    return made


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
def test_a_blob_comes_back_as_it_was_pushed(front: Front, is_chunked: bool) -> None:
    data = os.urandom(3 * MIB)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    at = front.send("POST", "/v2/acme/files/blobs/uploads/", b"").headers["Location"]
    for start in range(0, len(data), MIB):
        chunk = data[start : start + MIB]
        body = iter([chunk[:1000], chunk[1000:]]) if is_chunked else chunk
        sent = front.send("PATCH", at, body, Content_Range=f"{start}-{start + len(chunk) - 1}")
        assert sent.status == 202, sent.body
    done = front.send("PUT", f"{at}?digest={digest}", b"")
    pulled = front.send("GET", f"/v2/acme/files/blobs/{digest}")
    part = front.send("GET", f"/v2/acme/files/blobs/{digest}", Range="bytes=1000-1999")

    assert at.startswith(f"{URL}/v2/acme/files/blobs/uploads/")
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest)
    assert pulled.body == data
    assert (part.status, part.body) == (206, data[1000:2000])


def test_requests_of_the_registry_are_shared_among_the_nodes(front: Front) -> None:
    answers = [front.send("GET", "/v2/") for _ in range(12)]

    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["Tonnage-Node"] for answer in answers} == {"node0", "node1"}


def test_an_ollama_client_pushes_and_pulls_with_its_key(front: Front, key: PrivateKey, tmp_path: Path) -> None:
    name = f"acme/{front.proxy.kind}:v1"
    here, there = LocalStore(tmp_path / "here"), LocalStore(tmp_path / "there")
    raw = here.add_model(name, LAYERS, CONFIG)

    Push(front.registry(key), here, smallest_part=MIB).run(name)
    Pull(front.registry(key), there, smallest_part=MIB).run(name)

    assert there.manifest(name).read_bytes() == without_newline(raw)
    assert "signature" not in front.proxy.log


def test_a_model_is_always_asked_of_the_same_node(front: Front, models: list[str]) -> None:
    for _ in range(5):  # a node that is slow to answer a check loses its models for as long, as it should
        front.proxy.wait_until_dead("nodes_by_model/node3")
        turns = front.proxy.turns
        asked = {model: {front.generate(model).headers["Tonnage-Node"] for _ in range(3)} for model in models}
        if front.proxy.turns == turns:
            break

    assert {len(each) for each in asked.values()} == {1}


def test_an_answer_streams_to_its_end(front: Front, models: list[str]) -> None:
    lines = list(front.admin.lines("/api/generate", {"model": models[0], "prompt": "a", "options": {"num_predict": 5}}))

    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 2
