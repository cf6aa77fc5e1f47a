"""Reading a private blob by its signed address, without credentials, over a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from storage.digest import Digest
from tests.client import Client
from tests.server import Server, running_server

DATA, OTHER = os.urandom(300_000), os.urandom(1000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("signed") / "data") as running:
        running.run("namespace", "create", "open", "--public")
        owner = Client(running.host, running.admin_token)
        for repository in ("acme/model", "open/model"):
            for data in (DATA, OTHER):
                owner.push_blob(repository, data)
        yield running


@pytest.fixture
def stranger(server: Server) -> Client:
    return Client(server.host)


def path_of(data: bytes, repository: str = "acme/model") -> str:
    return f"/v2/{repository}/blobs/{Digest.of(data)}"


def location(server: Server, token: str, path: str, method: str = "GET") -> str:
    return str(Client(server.host, token).request(method, path).headers["Location"])


def test_the_address_of_a_private_blob_needs_no_credentials(server, stranger):
    assert stranger.request("GET", path_of(DATA)).status == 401

    url = location(server, server.admin_token, path_of(DATA))

    assert stranger.request("GET", url).body == DATA
    assert stranger.request("HEAD", url).headers["Content-Length"] == str(len(DATA))
    part = stranger.request("GET", url, headers={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, DATA[100:200])
    assert part.headers["Location"] == url  # no longer life by asking again


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
def test_it_lets_nobody_do_more_than_read(server, stranger, method):
    url = location(server, server.admin_token, path_of(DATA))

    assert stranger.request(method, url, b"").status in (401, 405)


def test_it_opens_nothing_else(server, stranger):
    query = location(server, server.admin_token, path_of(DATA)).partition("?")[2]

    for path in (path_of(OTHER), "/v2/acme/model/tags/list", "/v2/acme/model/manifests/v1", "/v2/_catalog"):
        assert stranger.request("GET", f"{path}?{query}").status == 401, path


def test_an_altered_address_is_worthless(server, stranger):
    url = location(server, server.admin_token, path_of(DATA))
    name, _, value = url.rpartition("signature=")
    swapped = "A" if value[0] != "A" else "B"

    for altered in (f"{name}signature={swapped}{value[1:]}", f"{name}signature=", url.replace("by=token", "by=key")):
        assert stranger.request("GET", altered).status == 401, altered


def test_it_ends_with_the_token_that_asked_for_it(server, stranger):
    token = server.run("token", "create", "reader", "--scope", "pull").stdout.split()[-1]
    url = location(server, token, path_of(DATA))
    assert stranger.request("GET", url).status == 200

    server.run("token", "revoke", "reader")

    assert stranger.request("GET", url).status == 401


def test_what_is_public_needs_no_signature(server, stranger):
    path = path_of(DATA, "open/model")

    assert location(server, server.admin_token, path) == path
    assert stranger.request("GET", path).body == DATA


def test_a_wrong_signature_closes_nothing_that_is_public(stranger):
    assert stranger.request("GET", path_of(DATA, "open/model") + "?signature=x").status == 200
