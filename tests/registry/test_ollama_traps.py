"""What has broken ollama clients at other registries, numbered as in the protocol's table of compatibility traps.

Here are those that want a real client or socket; the others are tested where their rule lives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auth.keys import PrivateKey
from storage.digest import Digest
from tests.auth.vectors import CLIENT2_BEARER
from tests.client import CONFIG_TYPE, DOCKER_MANIFEST, MODEL_TYPE, Client
from tests.ollama_client import AGENT, NOT_FOUND, ClientError, LocalStore
from tests.ollama_flows import Pull
from tests.registry.ollama_world import LAYERS, World, ollama_world

TRANSFER = {"User-Agent": "ollama-transfer/1.0"}
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
WEIGHTS = LAYERS[0][1]
BLOB = f"/v2/acme/model/blobs/{Digest.of(WEIGHTS)}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ollama_world(tmp_path_factory.mktemp("traps")) as running:
        running.push("acme/model:v1", running.folder / "from")
        yield running


@pytest.fixture(scope="module")
def owner(world: World) -> Client:
    return world.admin()


@pytest.fixture(scope="module")
def nobody(world: World) -> Client:
    return Client(world.server.host)


def test_trap_5_59_every_head_tells_the_size_of_the_descriptor(world: World, owner: Client) -> None:
    manifest = owner.request("GET", "/v2/acme/model/manifests/v1").json

    for layer in [*manifest["layers"], manifest["config"]]:
        head = owner.request("HEAD", f"/v2/acme/model/blobs/{layer['digest']}")
        assert head.headers["Content-Length"] == str(layer["size"])
        assert "Transfer-Encoding" not in head.headers


@pytest.mark.parametrize(
    "spoil", [lambda url: url[:-1], lambda url: url.replace("expires=", "expires=1")], ids=["cut", "prolonged"]
)
def test_trap_8_a_refused_part_has_no_body_that_could_be_taken_for_one(owner: Client, nobody: Client, spoil) -> None:
    """The client does not look at the status of a part: it would store the error."""
    url = owner.request("HEAD", BLOB).headers["Location"]

    refused = nobody.request("GET", spoil(url), headers={"Range": "bytes=0-9"})

    assert refused.status in (401, 403)
    assert refused.body == b""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_trap_9_13_addresses_are_absolute_and_on_the_host_that_was_asked(
    world: World, owner: Client, name: str
) -> None:
    host = f"{name}:{world.server.host.partition(':')[2]}"
    asked = {"Host": host}

    start = owner.request("POST", "/v2/acme/model/blobs/uploads/", headers=asked)
    path = urlsplit(start.headers["Location"]).path
    part = owner.request("PATCH", path, b"abc", {**asked, "Content-Range": "0-2", "X-Redirect-Uploads": "1"})
    done = owner.request("PUT", f"{path}?digest={Digest.of(b'abc')}", headers=asked)

    assert (start.status, part.status, done.status) == (202, 202, 201)
    for answer in (start, part):
        assert urlsplit(answer.headers["Location"])[:2] == ("http", host)


def test_trap_10_13_19_a_proxy_that_ends_tls_is_not_noticed(tmp_path: Path) -> None:
    """Signed was `https://name`, what arrives is http; every address must be the client's."""
    name = "registry.example.com"
    with ollama_world(tmp_path / "world", {"TONNAGE_EXTERNAL_URL": f"https://{name}"}) as proxied:
        dial = {name: proxied.server.host}
        store = LocalStore(tmp_path / "store")
        for key, act in ((proxied.owner, proxied.push), (proxied.reader, proxied.pull)):
            registry = proxied.registry(key, dial=dial)
            registry.url = f"https://{name}"
            act("acme/model:v1", tmp_path / act.__name__, registry)
            assert {each.url.partition("/v2/")[0] for each in registry.sent} == {f"https://{name}"}
    pulled = LocalStore(tmp_path / "pull").blob(store.add(WEIGHTS))
    assert pulled.read_bytes() == WEIGHTS


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "PUT", "POST", "DELETE"])
def test_trap_14_15_every_401_has_one_challenge_that_can_be_parsed(nobody: Client, method: str) -> None:
    path = {"POST": "/v2/acme/model/blobs/uploads/", "PATCH": "/v2/acme/model/blobs/uploads/x"}.get(method, BLOB)
    path = path if method != "PUT" else "/v2/acme/model/manifests/v1"

    refused = nobody.request(method, path, b"" if method in ("PATCH", "PUT") else None)

    assert refused.status == 401
    (challenge,) = refused.headers.get_all("WWW-Authenticate")
    assert challenge.startswith(f'Bearer realm="http://{nobody.host}/v2/token",service="tonnage",scope="')


def test_trap_20_the_transfer_client_is_not_asked_for_a_token_again_and_again(world: World, owner: Client) -> None:
    """It asks for a new token as long as it gets 401."""
    secret = world.server.run("token", "create", "puller", "--scope", "pull").stdout.split()[-1]

    refused = Client(world.server.host, secret).request("POST", "/v2/acme/model/blobs/uploads/", headers=TRANSFER)

    assert refused.status == 403
    assert "does not allow pushing" in refused.json["errors"][0]["message"]


def test_trap_21_23_the_transfer_client_announces_a_digest_without_a_body(owner: Client) -> None:
    data = os.urandom(2000)
    headers = {**TRANSFER, "X-Redirect-Uploads": "2", "X-Content-Length": str(len(data)), "Content-Length": "0"}
    path = f"/v2/acme/transfer/blobs/uploads/?digest={Digest.of(data)}"

    start = owner.request("POST", path, headers=headers)
    sent = owner.request(
        "PATCH", start.headers["Location"], data, {**headers, "Content-Length": "2000", "Content-Range": "0-1999"}
    )
    done = owner.request("PUT", f"{sent.headers['Location']}?digest={Digest.of(data)}&etag=x-1", headers=TRANSFER)
    again = owner.request("POST", path, headers=headers)

    assert (start.status, sent.status, done.status, again.status) == (202, 202, 201, 201)


def test_trap_31_a_zero_byte_blob_is_pushed_without_a_part_and_has_an_address(world: World, tmp_path: Path) -> None:
    registry = world.registry(world.owner)
    empty = Digest.of(b"")

    world.push("acme/empty:v1", tmp_path, registry)

    assert not [each for each in registry.sent if each.method == "PATCH" and each.header["Content-Length"] == "0"]
    assert [
        each for each in registry.sent if each.method == "PUT" and f"{empty.encoded}&etag=d41d8cd98f00b204" in each.url
    ]
    assert Pull(registry, LocalStore(tmp_path)).address(registry.path("acme/empty", "blobs", str(empty)))


def test_trap_42_an_oci_manifest_is_pulled_by_a_client_that_does_not_ask_for_one(
    world: World, owner: Client, tmp_path: Path
) -> None:
    weights, config = owner.push_blob("acme/oci", WEIGHTS), owner.push_blob("acme/oci", b"{}")
    layer = {"mediaType": MODEL_TYPE, "digest": weights, "size": len(WEIGHTS)}
    about = {"mediaType": CONFIG_TYPE, "digest": config, "size": 2}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": [layer]}).encode()
    assert owner.put_manifest("acme/oci", "v1", raw, OCI_MANIFEST).status == 201

    store = world.pull("acme/oci:v1", tmp_path)

    assert store.manifest("acme/oci:v1").read_bytes() == raw


def test_trap_42_an_index_is_no_model_and_does_not_look_like_one(world: World, owner: Client, tmp_path: Path) -> None:
    """The client takes it for a model without layers, and says success."""
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    assert owner.put_manifest("acme/index", "v1", raw, OCI_INDEX).status == 201

    with pytest.raises(ClientError, match=NOT_FOUND):
        world.pull("acme/index:v1", tmp_path)


def test_trap_47_clients_that_hang_up_leave_no_trace(world: World, owner: Client) -> None:
    before = len(world.server.log)

    for _ in range(20):
        connection, response = owner.open("GET", BLOB, headers={"User-Agent": AGENT})
        assert response.status == 200
        connection.close()

    assert owner.request("GET", BLOB).body == WEIGHTS
    assert "Traceback" not in world.server.log[before:]
    assert "rror" not in world.server.log[before:]


def test_trap_49_60_the_transfer_client_reads_the_blob_where_it_asked_for_it(owner: Client) -> None:
    assert owner.request("GET", BLOB, headers=TRANSFER).body == WEIGHTS


def test_trap_50_51_a_bearer_of_client2_closes_nothing_and_opens_nothing(world: World, tmp_path: Path) -> None:
    pushed = json.loads(world.push("open/client2:v1", tmp_path))
    digest = pushed["layers"][0]["digest"]
    client2 = Client(world.server.host)
    asked = {"Authorization": CLIENT2_BEARER}

    assert client2.request("GET", "/v2/open/client2/manifests/v1", headers=asked).status == 200
    whole = {"Range": f"bytes=0-{len(WEIGHTS) - 1}"}
    assert client2.request("GET", f"/v2/open/client2/blobs/{digest}", headers=whole).body == WEIGHTS
    assert client2.request("GET", "/v2/acme/model/manifests/v1", headers=asked).status == 401


def test_trap_54_a_connection_survives_a_401_in_the_middle_of_a_push(world: World, tmp_path: Path) -> None:
    """The body that nobody wanted is read away, or the connection ends before the next request could be lost in it."""
    registry = world.registry(world.owner)
    registry.token = "stale"

    for number in range(5):
        world.push(f"acme/stale-{number}:v1", tmp_path, registry, smallest_part=100_000)
        registry.token = f"stale{number}"

    assert all(each.status < 400 or each.status in (401, 404) for each in registry.sent)


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_trap_57_a_wrong_clock_is_told_ours(world: World, tmp_path: Path, skew_s: int) -> None:
    with pytest.raises(ClientError, match=r"(?i)clock|time"):
        world.pull("acme/model:v1", tmp_path, world.registry(world.reader, skew_s=skew_s))


@pytest.mark.parametrize("body", [b"{", b'{"schemaVersion":2,"config":7}'])
def test_trap_58_a_refused_manifest_is_not_called_a_refused_person(owner: Client, body: bytes) -> None:
    refused = owner.request("PUT", "/v2/acme/model/manifests/bad", body, {"Content-Type": DOCKER_MANIFEST})

    assert refused.status == 400
    assert b"unauthorized" not in refused.body.lower()
    assert b"access denied" not in refused.body.lower()


def test_a_strangers_manifest_is_refused_like_one_that_is_not_there(world: World, tmp_path: Path) -> None:
    stranger = PrivateKey.generate()
    words = []
    for name in ("acme/model:v1", "acme/nowhere:v1"):
        with pytest.raises(ClientError) as refused:
            world.pull(name, tmp_path, world.registry(stranger))
        words.append(str(refused.value))
    assert words[0] == words[1]
