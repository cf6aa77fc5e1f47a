"""Downloads that are sent on to the object store, and clients that cope with that."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from registry.redirects import can_follow
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import RemoteError
from registry.remotes.hosts import NamedHost
from registry.remotes.http import USER_AGENT, Outbound
from registry.remotes.reach import Reach
from storage.digest import Digest
from storage.reference import RepositoryName
from tests.client import Client
from tests.ollama_client import PART_AGENT, LocalStore
from tests.ollama_transfer import Transfer
from tests.registry.direct.conftest import DATA
from tests.registry.ollama_world import LAYERS, World
from tests.registry.test_skopeo import NO_SKOPEO, Skopeo, write_dir

DOCKER = {"User-Agent": "docker/26.1.3 go/go1.21.10 os/linux arch/amd64"}
WEIGHTS = LAYERS[0][1]


def read(url: str, **headers: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.status, answer.read()


@pytest.mark.parametrize(
    ("headers", "here", "follows"),
    [
        ({"User-Agent": "docker/26.1.3 go/go1.21"}, "r.example", True),
        ({"User-Agent": "containerd/v1.7.2", "Authorization": "Bearer x"}, "r.example:5000", True),
        ({"User-Agent": "skopeo/1.9.3", "Range": "bytes=0-9"}, "r.example", True),
        ({"User-Agent": "oras/1.2.0", "Authorization": "Bearer x"}, "s3.example:5000", False),  # goes along, says Go
        ({"User-Agent": "oras/1.2.0", "Authorization": "Bearer x"}, "example", False),
        ({"User-Agent": "oras/1.2.0"}, "s3.example:5000", True),
        ({"User-Agent": "oras/1.2.0", "Authorization": "Bearer x"}, "ample", True),
        ({"User-Agent": PART_AGENT, "Range": "bytes=0-9"}, "s3.example:5000", True),
        ({"User-Agent": PART_AGENT}, "r.example", False),
        ({"User-Agent": PART_AGENT, "Range": "bytes=0-9", "Authorization": "Bearer x"}, "r.example", False),
        ({"User-Agent": "ollama-transfer/1.0", "Authorization": "Bearer x"}, "s3.example:5000", True),
        ({"User-Agent": "ollama-transfer/1.0"}, "s3.example", False),  # it would ask there again
        ({"User-Agent": "tonnage/0.1"}, "r.example", True),
        ({"User-Agent": "tonnage/0.1 (server)"}, "r.example", False),
        ({"User-Agent": "curl/8.5.0"}, "r.example", False),
        ({}, "r.example", False),
    ],
)
def test_clients_that_cope_are_known(headers, here, follows):
    assert can_follow(headers, here, "https://s3.example/bucket/objects/x?X-Amz-Expires=60") is follows


def test_a_client_that_copes_is_sent_on(by_name, blob):
    sent_on = by_name.request("GET", f"/v2/open/data/blobs/{blob}", headers=DOCKER)

    assert (sent_on.status, sent_on.body) == (307, b"")
    told = {
        name: sent_on.headers[name] for name in ("Docker-Content-Digest", "ETag", "Cache-Control", "Content-Length")
    }
    assert list(told.values()) == [blob, f'"{blob}"', "no-store", "0"]
    address = sent_on.headers["Location"]
    assert "X-Amz-Expires=3600" in address
    assert read(address) == (200, DATA)
    assert read(address, Range="bytes=500000-") == (206, DATA[500_000:])


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=0-1000"}, 206),  # few bytes
        ("GET", {"Range": "bytes=0-300000,400000-700000"}, 206),  # which stores do not do
        ("GET", {"Range": "bytes=0-600000", "If-Range": '"other"'}, 200),
        ("GET", {"If-Match": "*"}, 200),
        ("GET", {"If-None-Match": "*"}, 304),
        ("GET", {"Range": "bytes=800000-"}, 416),
        ("GET", {"User-Agent": "curl/8.5.0"}, 200),
        ("GET", {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26.0"}, 200),  # its parts are sent on
    ],
)
def test_what_the_store_would_answer_otherwise_is_answered_here(by_name, blob, method, headers, status):
    assert by_name.request(method, f"/v2/open/data/blobs/{blob}", headers={**DOCKER, **headers}).status == status


def test_a_private_blob_is_sent_on_for_those_who_may_read_it(world, by_name, blob):
    path = f"/v2/acme/data/blobs/{blob}"
    assert by_name.request("GET", path, headers=DOCKER).status == 401

    whole = Client(by_name.host, world.server.admin_token).request("GET", path, headers=DOCKER)

    assert whole.status == 307
    assert read(whole.headers["Location"]) == (200, DATA)


def test_credentials_do_not_go_along(admin, blob):
    """The store is at the same host: Go would send them there."""
    assert admin.request("GET", f"/v2/open/data/blobs/{blob}", headers=DOCKER).body == DATA


def test_an_ollama_client_fetches_its_parts_from_the_store(world: World, tmp_path: Path):
    world.push("acme/parts:v1", tmp_path / "from")
    registry = world.registry(world.reader)

    store = world.pull("acme/parts:v1", tmp_path / "to", registry)

    assert store.blob(LocalStore(tmp_path / "any").add(WEIGHTS)).read_bytes() == WEIGHTS
    parts = [each for each in registry.sent if each.header["User-Agent"] == PART_AGENT]
    here = [each.status for each in parts if each.url.startswith(world.server.url) and "-0" not in each.header["Range"]]
    assert here.count(307) == 3
    assert {each.status for each in parts if not each.url.startswith(world.server.url)} == {206}
    assert all("Authorization" not in each.header for each in parts)


def test_a_transfer_client_fetches_a_blob_once(world: World, blob):
    transfer = Transfer(world.server.url)

    assert transfer.pull_blob("open/data", blob) == DATA

    assert [sent.status for sent in transfer.transport.sent] == [307, 200]
    assert "X-Amz-Expires=86400" in transfer.transport.sent[1].url


@NO_SKOPEO
def test_skopeo_fetches_a_layer_from_the_store(world: World, by_name, tmp_path: Path):
    skopeo = Skopeo(replace(world.server, host=by_name.host), tmp_path)
    skopeo.login(world.server.admin_token)
    source, _ = write_dir(tmp_path / "from", os.urandom(400_000).hex())
    skopeo.copy(source, skopeo.at("acme/image:v1"))
    before = len(sent_on(world))

    skopeo.copy(skopeo.at("acme/image:v1"), f"dir:{tmp_path / 'to'}")

    for path in (tmp_path / "from").iterdir():
        assert (tmp_path / "to" / path.name).read_bytes() == path.read_bytes()
    assert len(sent_on(world)) == before + 1


def test_our_own_command_fetches_from_the_store(world: World, tmp_path: Path):
    world.push("open/model:v1", tmp_path / "from")
    before = len(sent_on(world))

    world.server.run("pull", "open/model:v1", "-o", str(tmp_path / "model.gguf"))

    assert (tmp_path / "model.gguf").read_bytes() == WEIGHTS
    assert len(sent_on(world)) > before


def sent_on(world: World) -> list[str]:
    return re.findall(r"GET /v2/\S+ 307 ", world.server.log)


def remote(world: World, agent: str, *named: NamedHost) -> RemoteRepository:
    here = NamedHost.parse(world.server.host)
    http = Outbound(user_agent=agent, reach=Reach((here, *named)))
    return RemoteRepository(Authenticator(http), world.server.url, RepositoryName("open/data"))


def fetched(repository: RemoteRepository, blob: str) -> bytes:
    with repository.open_blob(Digest.parse(blob), len(DATA), start=1) as body:
        return b"".join(body)


def test_another_server_is_not_sent_to_where_it_may_not_go(world: World, blob):
    assert fetched(remote(world, f"{USER_AGENT} (server)"), blob) == DATA[1:]


def test_who_is_sent_to_an_address_that_nobody_named_refuses_with_a_line(world: World, blob):
    with pytest.raises(RemoteError, match="TONNAGE_ALLOWED_HOSTS"):
        fetched(remote(world, USER_AGENT), blob)


def test_who_is_sent_to_a_named_address_goes_on_there(world: World, s3, blob):
    named = NamedHost.parse(s3.endpoint.removeprefix("http://"))

    assert fetched(remote(world, USER_AGENT, named), blob) == DATA[1:]


def test_no_address_is_in_the_log(world: World, blob):
    """Of what all requests of these tests left there, at its most talkative."""
    Client(world.server.host).request("GET", f"/v2/open/data/blobs/{blob}", headers=DOCKER)

    assert sent_on(world)
    assert "X-Amz-" not in world.server.log
