"""Uploads and creates over real sockets: bodies without a length, bytes sent in vain, clients that leave."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.layout import BLOBS
from tests.backends import driver_of
from tests.client import Client
from tests.full_gguf import write_full_gguf
from tests.made_models import digest_of
from tests.registry.hostile import chunked, exchange, request
from tests.server import Server, running_server, wait_for

LARGE = 96 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        tmp_path_factory.mktemp("wire") / "data", {"TONNAGE_UPSTREAM": "http://127.0.0.1:1"}
    ) as running:
        yield running


@pytest.fixture
def anybody(server: Server) -> Client:
    return Client(server.host)


def pieces(data: bytes, size: int = 2**20) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def test_trap_2_a_body_in_chunks_is_stored_whole(server, anybody):
    data = os.urandom(3 * 2**20 + 17)
    path = f"/api/blobs/{digest_of(data)}"

    first = anybody.request("POST", path, pieces(data), {"Transfer-Encoding": "chunked"}, chunked=True)

    assert (first.status, first.body) == (201, b"")
    assert anybody.request("HEAD", path).status == 200
    driver = driver_of(server.data)
    assert data in [driver.open(key).read() for key in driver.keys(BLOBS) if driver.stat(key) == len(data)]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_trap_3_a_large_body_that_is_here_already_is_read_and_the_connection_goes_on(server, anybody, is_chunked):
    data = os.urandom(2**20) * (LARGE // 2**20)
    path = f"/api/blobs/{digest_of(data)}"
    assert anybody.request("POST", path, data).status in (200, 201)
    headers = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(LARGE)}
    connection = http.client.HTTPConnection(server.host, timeout=60)

    connection.request("POST", path, body=pieces(data), headers=headers, encode_chunked=is_chunked)
    answer = connection.getresponse()

    assert (answer.status, answer.read()) == (200, b"")
    connection.request("GET", "/api/version")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_refusal_reaches_a_client_that_still_sends(anybody):
    for path, headers in (
        ("/api/blobs/nonsense", {}),
        (f"/api/blobs/{digest_of(b'')}", {"X-Forwarded-For": "203.0.113.9"}),
    ):
        answer = anybody.request("POST", path, b"x" * 2**20, headers)

        assert answer.status in (400, 403)
        assert set(answer.json) == {"error"}


@pytest.mark.parametrize("is_chunked", [False, True])
def test_of_a_body_that_breaks_off_nothing_stays(server, anybody, is_chunked):
    data = os.urandom(2**20)
    path = f"/api/blobs/{digest_of(data)}"
    before = _files(server)
    length = ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(len(data)))
    body = chunked(data)[: len(data) // 2] if is_chunked else data[: len(data) // 2]

    exchange(server.host, request("POST", path, [("Host", server.host), length], body), ["POST"])

    wait_for(lambda: _files(server) == before, 10, "the session to be given up")
    assert anybody.request("HEAD", path).status == 404


def test_a_chunked_body_of_other_bytes_is_refused_in_the_literal_words(anybody):
    data, other = b"these" * 1000, digest_of(b"those")

    answer = anybody.request(
        "POST", f"/api/blobs/{other}", pieces(data), {"Transfer-Encoding": "chunked"}, chunked=True
    )

    assert answer.status == 400
    assert answer.json == {"error": f'digest mismatch, expected "{other}", got "{digest_of(data)}"'}


def test_what_is_created_is_what_can_be_pulled(anybody, server, tiny_gguf):
    data = tiny_gguf.read_bytes()
    digest = digest_of(data)
    assert anybody.request("POST", f"/api/blobs/{digest}", data).status in (200, 201)

    lines = list(anybody.lines("/api/create", {"model": "wire/tiny", "files": {"tiny.gguf": digest}}))

    assert lines[-1] == {"status": "success"}
    admin = Client(server.host, server.admin_token)
    assert admin.request("GET", f"/v2/wire/tiny/blobs/{digest}").body == data


def test_a_base_that_is_missing_is_pulled_first_and_success_is_said_once(shared_server, admin, tiny_gguf, tmp_path):
    shared_server.run("namespace", "create", "bases", "--public")
    admin.push_model("bases/tiny", "v1", tiny_gguf)
    with running_server(tmp_path / "data", {"TONNAGE_UPSTREAM": shared_server.url}) as server:
        lines = list(Client(server.host).lines("/api/create", {"model": "x", "from": "bases/tiny:v1", "system": "s"}))
        found = Client(server.host).request("GET", "/api/tags").json["models"]

    assert lines[0] == {"status": "pulling manifest"}
    assert lines.count({"status": "success"}) == 1
    assert lines[-1] == {"status": "success"}
    assert sorted(each["name"] for each in found) == ["bases/tiny:v1", "x:latest"]


def test_a_client_that_leaves_ends_the_create_and_nothing_of_it_is_seen(anybody, server, tmp_path):
    weights = write_full_gguf(tmp_path / "full.gguf", "F16", width=1024, layers=4)
    digest = digest_of(weights.read_bytes())
    with weights.open("rb") as file:
        size = {"Content-Length": str(weights.stat().st_size)}
        assert anybody.request("POST", f"/api/blobs/{digest}", file, size).status == 201
    before = _files(server)
    body = json.dumps({"model": "left/alone", "files": {"f.gguf": digest}, "quantize": "q4_K_M"}).encode()

    _leave_at(server.host, body, b"quantizing")

    wait_for(lambda: not server.processes("runtime.runner.quantize"), 20, "the work to end")
    wait_for(lambda: _files(server) == before, 20, "its file to go")
    assert "left/alone:latest" not in [each["name"] for each in anybody.request("GET", "/api/tags").json["models"]]
    assert Client(server.host, server.admin_token).request("GET", "/v2/left/alone/tags/list").status == 404


def _leave_at(host: str, body: bytes, word: bytes) -> None:
    """Ask for a create, and close the connection when its answer comes to `word`."""
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), 30) as connection:
        headers = [("Host", host), ("Content-Length", str(len(body)))]
        connection.sendall(request("POST", "/api/create", headers, body))
        seen = b""
        while word not in seen:
            piece = connection.recv(2**16)
            assert piece, seen
            seen += piece


def _files(server: Server) -> set[Path]:
    return {each for folder in ("uploads", "objects") for each in (server.data / folder).rglob("*") if each.is_file()}
