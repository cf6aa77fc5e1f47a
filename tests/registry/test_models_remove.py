"""DELETE /api/delete and `tonnage rm`, over a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import OF_FILES
from tests.client import Client
from tests.server import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("remove") / "data") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.host, server.admin_token)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights " * 2**17)
    return path


def delete(client: Client, body: bytes) -> tuple[int, bytes]:
    answer = client.request("DELETE", "/api/delete", body, {"Content-Type": "application/json"})
    return answer.status, answer.body


@pytest.mark.parametrize("key", ["model", "name"])
def test_a_model_is_deleted_by_either_key(client, weights, key):
    digest = client.push_model("acme/model", "v1", weights).headers["Docker-Content-Digest"]

    assert delete(client, b'{"%s": "ACME/model:V1"}' % key.encode()) == (200, b"")

    for reference in ("v1", digest):
        assert client.request("GET", f"/v2/acme/model/manifests/{reference}").status == 404


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{}", 400, b"model is required"),
        (b'{"model": "", "name": ""}', 400, b"model is required"),
        (b'{"model": "a b"}', 400, b'name \\"a b\\" is invalid'),
        (b'{"model": "acme/absent:v9"}', 404, b"model 'acme/absent:v9' not found"),
        (b'{"model": 5}', 400, b"must be of type string"),
        (b"", 400, b"missing request body"),
    ],
)
def test_what_cannot_be_deleted_is_said(client, body, status, message):
    answer = delete(client, body)

    assert answer[0] == status
    assert message in answer[1]


def test_a_stranger_with_a_key_of_nobody_deletes_only_from_this_machine(server, client, weights):
    client.push_model("acme/mine", "v1", weights)
    through_a_proxy = {"X-Forwarded-For": "203.0.113.9", "Content-Type": "application/json"}

    answer = Client(server.host).request("DELETE", "/api/delete", b'{"model": "acme/mine:v1"}', through_a_proxy)

    assert answer.status in (401, 403)
    assert client.request("GET", "/v2/acme/mine/manifests/v1").status == 200


@OF_FILES
def test_rm_now_gives_the_space_back_at_once(server, client, weights):
    before = _stored(server)
    weights.write_bytes(os.urandom(2**20))
    client.push_model("acme/big", "v1", weights)
    assert _stored(server) > before

    said = server.run("rm", "acme/big:v1", "--now").stdout

    assert said == "deleted acme/big:v1\n"
    assert _stored(server) == before
    assert "not found" in server.run("rm", "acme/big:v1", check=False).stderr


def _stored(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.data / "objects").rglob("*") if path.is_file())
