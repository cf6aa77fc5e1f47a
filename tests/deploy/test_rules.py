"""What both proxies do with requests and answers, before nodes of this process that show it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client import Answer, Client, connection_closing
from tests.deploy.proxies import KINDS, Proxy, free_port, running_proxy
from tests.deploy.small_node import Exchange, SmallNode, small_node
from tests.waiting import wait_for

MIB = 2**20


@dataclass(frozen=True)
class Front:
    """A proxy and the three nodes behind it."""

    proxy: Proxy
    nodes: list[SmallNode]

    @property
    def client(self) -> Client:
        return Client(self.proxy.host)

    @property
    def heard(self) -> int:
        """How often a node was asked."""
        return sum(len(node.heard) for node in self.nodes)

    def ask(self, model: str, path: str = "/api/chat", **more: object) -> str:
        """The node that answers for a model."""
        return answerer(self.client.post_json(path, {"model": model, **more}))


@contextmanager
def three_nodes(kind: str, folder: Path) -> Iterator[Front]:
    with ExitStack() as held:
        nodes = [held.enter_context(small_node(name)) for name in "abc"]
        yield Front(held.enter_context(running_proxy(kind, folder / "proxy", [node.host for node in nodes])), nodes)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with three_nodes(request.param, tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
def front(running: Front) -> Front:
    for node in running.nodes:
        node.forget()
    return running


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/v2/acme/model/blobs/uploads/1"), ("POST", "/api/copy"), ("POST", "/api/chat")]
)
def test_what_a_node_may_have_begun_is_not_sent_to_another(kind: str, method: str, path: str, tmp_path: Path) -> None:
    with three_nodes(kind, tmp_path) as front:
        for node in front.nodes:
            node.act = Exchange.drop

        answer = front.client.request(method, path, b'{"model": "acme/model"}')

        assert answer.status == 502
        assert front.heard == 1


@pytest.mark.parametrize("path", ["/v2/acme/model/manifests/v1", "/api/chat"])
def test_a_busy_node_is_the_answer_and_says_when_to_come_again(front: Front, path: str) -> None:
    for node in front.nodes:
        node.act = lambda exchange: exchange.answer(503, b"{}", Retry_After="7")

    answer = front.client.post_json(path, {"model": "acme/model"})

    assert (answer.status, answer.headers["Retry-After"], answer.body) == (503, "7", b"{}")
    assert front.heard == 1


@pytest.mark.parametrize(
    ("path", "spelling"),
    [
        ("/api/generate", "acme/model"),
        ("/api/chat", "ACME/Model"),
        ("/api/embed", "acme/model:latest"),
        ("/v1/chat/completions", "acme/model:LATEST"),
        ("/v1/messages", "acme/model"),
        ("/api/tokenize", "acme\\/model"),
    ],
)
def test_every_spelling_of_a_name_meets_one_node(front: Front, path: str, spelling: str) -> None:
    expected = front.ask("acme/model")

    answer = front.client.request("POST", path, b'{"stream": false, "model": "%s"}' % spelling.encode())

    assert answerer(answer) == expected


def test_a_name_without_a_namespace_is_one_of_the_library(front: Front) -> None:
    assert front.ask("llama3") == front.ask("library/llama3:latest")


def test_a_name_behind_a_long_conversation_is_found(front: Front) -> None:
    expected = {model: front.ask(model) for model in names(6)}
    said = [{"role": "user", "content": '{"model": "another"} ' * 4000}]

    found = {
        model: answerer(front.client.post_json("/v1/chat/completions", {"messages": said, "model": model}))
        for model in expected
    }

    assert found == expected


def test_a_header_names_the_model_where_the_body_is_too_long(front: Front) -> None:
    expected = {model: front.ask(model) for model in names(6)}
    body = b'{"images": "%s"}' % (b"A" * (9 * MIB))

    found = {
        model: answerer(front.client.request("POST", "/api/chat", body, {"Tonnage-Model": model})) for model in expected
    }

    assert found == expected
    assert {each.size for node in front.nodes for each in node.heard if each.size > MIB} == {len(body)}


@pytest.mark.parametrize("body", [b"not JSON", b'{"messages": []}', b""], ids=["text", "no name", "none"])
def test_what_names_no_model_is_shared_among_the_nodes(front: Front, body: bytes) -> None:
    answers = [front.client.request("POST", "/api/chat", body) for _ in range(40)]

    assert {answerer(answer) for answer in answers} == {"a", "b", "c"}


def test_models_are_shared_among_the_nodes(front: Front) -> None:
    assert {front.ask(model) for model in names(40)} == {"a", "b", "c"}


@pytest.mark.parametrize("kind", KINDS)
def test_when_a_node_dies_its_models_move_and_the_others_stay(kind: str, tmp_path: Path) -> None:
    with ExitStack() as held:
        nodes = [held.enter_context(small_node(name)) for name in "ab"]
        with small_node("c") as dying:
            proxy = running_proxy(kind, tmp_path / "proxy", [node.host for node in (*nodes, dying)])
            front = Front(held.enter_context(proxy), [*nodes, dying])
            before = {model: front.ask(model) for model in names(40)}

        after = {model: front.ask(model) for model in before}

    stayed = {model: node for model, node in before.items() if node != "c"}
    assert {model: after[model] for model in stayed} == stayed
    assert len(stayed) < len(before)
    assert set(after.values()) == {"a", "b"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_cannot_be_reached_costs_no_request(kind: str, tmp_path: Path) -> None:
    methods = ["GET", "POST", "PATCH", "PUT", "DELETE"] * 3
    with small_node("a") as a, small_node("b") as b:
        with running_proxy(kind, tmp_path / "proxy", [f"127.0.0.1:{free_port()}", a.host, b.host]) as proxy:
            answers = [Client(proxy.host).request(method, "/v2/acme/model/x", b"body") for method in methods]

        assert {answer.status for answer in answers} == {200}
        assert len(a.heard) + len(b.heard) == len(methods)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_is_passed_on_while_it_comes(front: Front, is_chunked: bool) -> None:
    written = disk_writes(front.proxy)
    half = b"x" * (32 * MIB)

    def body() -> Iterator[bytes]:
        yield half
        wait_for(lambda: sum(node.received for node in front.nodes) > len(half) // 2, 20, "the node to get the half")
        yield half

    sized = {} if is_chunked else {"Content-Length": str(2 * len(half))}
    answer = front.client.request("PATCH", "/v2/acme/model/blobs/uploads/1", body(), sized, chunked=is_chunked)

    assert answer.status == 200
    assert [each.size for node in front.nodes for each in node.heard] == [2 * len(half)]
    assert disk_writes(front.proxy) - written < MIB


def test_an_answer_that_comes_before_the_end_of_the_body_arrives_then(front: Front) -> None:
    for node in front.nodes:
        node.sends_on = True
    connection = http.client.HTTPConnection(front.proxy.host, timeout=20)
    with connection_closing(connection):
        connection.putrequest("PATCH", "/v2/acme/model/blobs/uploads/1")
        connection.putheader("Content-Length", str(32 * MIB))
        connection.endheaders(b"x" * MIB)
        response = connection.getresponse()

    assert (response.status, response.headers["Location"]) == (307, "http://bucket.test/part")
    assert front.heard == 1


def test_a_long_answer_leaves_no_copy_on_the_disk(front: Front) -> None:
    written = disk_writes(front.proxy)
    for node in front.nodes:
        node.act = lambda exchange: exchange.answer(body=b"x" * (64 * MIB))

    answer = front.client.request("GET", "/v2/acme/model/blobs/x")

    assert len(answer.body) == 64 * MIB
    assert disk_writes(front.proxy) - written < MIB


@pytest.mark.parametrize("path", ["/api/chat", "/api/pull"])
def test_a_line_is_here_before_the_next_one_is_made(front: Front, path: str) -> None:
    was_read = threading.Event()

    def stream(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.end_headers()
        exchange.wfile.write(b"6\r\nfirst\n\r\n")
        assert was_read.wait(20)
        exchange.wfile.write(b"7\r\nsecond\n\r\n0\r\n\r\n")

    for node in front.nodes:
        node.act = stream
    connection, response = front.client.open("POST", path, b'{"model": "acme/model"}')
    with connection_closing(connection):
        first = response.readline()
        was_read.set()
        second = response.readline()

    assert (first, second) == (b"first\n", b"second\n")


def test_a_client_that_leaves_takes_its_request_with_it(front: Front) -> None:
    has_left = threading.Event()

    def wait_for_the_end(exchange: Exchange) -> None:
        if exchange.sees_the_end(20):
            has_left.set()
        exchange.drop()

    for node in front.nodes:
        node.act = wait_for_the_end
    connection = http.client.HTTPConnection(front.proxy.host, timeout=20)
    connection.request("POST", "/api/chat", b'{"model": "acme/model"}')
    wait_for(lambda: front.heard == 1, 20, "a node to be asked")
    connection.close()

    assert has_left.wait(20)


@pytest.mark.parametrize("path", ["/v2/a/%2e%2E//x", "/api/chat"])
def test_a_node_is_told_who_asked_for_what(front: Front, path: str) -> None:
    target = f"{path}?scope=repository%3Aacme%2Fmodel:pull&ts=1+2"
    lies = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "elsewhere.test"}
    sent = {"Host": "models.test:8443", "Forwarded": "for=192.0.2.1", **lies}

    front.client.request("POST", target, b'{"model": "acme/model"}', sent)

    (heard,) = (each for node in front.nodes for each in node.heard)
    said = {name: heard.headers.get_all(name) for name in ("Host", "Forwarded", *lies)}
    assert heard.target == target
    assert said == {
        "Host": ["models.test:8443"],
        "Forwarded": None,
        "X-Forwarded-For": ["127.0.0.1"],
        "X-Forwarded-Proto": ["http"],
        "X-Forwarded-Host": ["models.test:8443"],
    }


def test_the_log_tells_of_requests_without_their_queries(front: Front) -> None:
    front.client.request("GET", "/v2/acme/logged/blobs/x?signature=a-secret")

    wait_for(lambda: "/v2/acme/logged/blobs/x" in front.proxy.log, 20, "the request to be logged")
    assert "a-secret" not in front.proxy.log


def names(count: int) -> list[str]:
    return [f"acme/model-{number}" for number in range(count)]


def answerer(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["node"])


def disk_writes(proxy: Proxy) -> int:
    """Bytes that the proxy's processes have written to files so far."""
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    counters = [Path(f"/proc/{pid}/io").read_text() for pid in (str(proxy.process.pid), *children)]
    return sum(
        int(line.split()[1]) for text in counters for line in text.splitlines() if line.startswith("write_bytes")
    )
