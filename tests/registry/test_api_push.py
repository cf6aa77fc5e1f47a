"""POST /api/push to a registry that fails where it is told to, over a real server."""

import hashlib
import json
import os

import pytest

from auth.keys import PublicKey
from registry.remotes.http import Origin
from storage.manifest import OCI_INDEX
from tests.client import DOCKER_MANIFEST, MODEL_TYPE
from tests.faulty_registry import Fault, faulty_registry
from tests.registry.transfers import MIB, Pair, pair, words
from tests.server import running_server, wait_for

LICENSE = "application/vnd.ollama.image.license"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pair(tmp_path_factory.mktemp("push")) as running:
        yield running


@pytest.fixture
def pushing(world):
    """The pair, the registry as new."""
    world.forget()
    return world


def store_model(world, *layers, tag="v1", **descriptor):
    """A model here, where a push to the registry looks for it; its digests as they are sent, and its bytes."""
    repository, described = world.repository(), []
    for kind, data in zip((MODEL_TYPE, LICENSE), layers, strict=False):
        digest = world.admin.push_blob(repository, data)
        described.append({"mediaType": kind, "digest": digest, "size": len(data), **descriptor})
    config = os.urandom(8)
    raw = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": world.admin.push_blob(repository, config),
            "size": len(config),
        },
        "layers": described,
    }, indent=2).encode()  # fmt: skip
    assert world.admin.put_manifest(repository, tag, raw).status == 201
    return [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (*layers, config)], raw


def pushed_words(digests):
    return [
        "retrieving manifest",
        *(f"pushing {digest[7:19]}" for digest in digests),
        "pushing manifest",
        "success",
    ]


def test_a_push_tells_each_step_and_sends_every_byte(pushing):
    weights, text = os.urandom(3 * MIB), b"MIT"
    digests, raw = store_model(pushing, weights, text)

    lines = pushing.push()

    assert words(lines) == pushed_words(digests)
    assert lines[0] == {"status": "retrieving manifest"}
    assert [pushing.registry.blobs[digest] for digest in digests[:2]] == [weights, text]
    assert pushing.registry.manifests["v1"] == (raw, "application/vnd.docker.distribution.manifest.v2+json")
    whole = {"digest": digests[0], "total": len(weights), "completed": len(weights)}.items()
    assert any(whole <= line.items() for line in lines)


def test_what_is_there_is_not_sent(pushing):
    digests, _ = store_model(pushing, os.urandom(MIB))
    pushing.push()
    pushing.registry.requests.clear()

    lines = pushing.push()

    assert words(lines) == pushed_words(digests)
    assert [request.method for request in pushing.registry.requests] == ["HEAD", "HEAD", "PUT"]


def test_an_empty_layer_is_pushed(pushing):
    digests, _ = store_model(pushing, os.urandom(10), b"")

    assert words(pushing.push()) == pushed_words(digests)
    assert pushing.registry.blobs[digests[1]] == b""


def test_a_layer_that_says_where_it_is_from_is_mounted(pushing):
    digests, _ = store_model(pushing, os.urandom(MIB), **{"from": "Base/Model:7b"})
    pushing.registry.faults.append(Fault("POST", f"from=base%2Fmodel&mount=sha256%3A{digests[0][7:]}", status=201))

    assert pushing.push()[-1] == {"status": "success"}
    assert pushing.registry.count("PATCH") == 1  # the config
    assert digests[0] not in pushing.registry.blobs


@pytest.mark.parametrize("origin", ["library/model.gguf", "/tmp/model.gguf", "a b", "x" * 300])
def test_a_layer_from_anywhere_else_is_sent(pushing, origin):
    digests, _ = store_model(pushing, data := os.urandom(100), **{"from": origin})

    assert pushing.push()[-1] == {"status": "success"}
    assert pushing.registry.blobs[digests[0]] == data


@pytest.mark.parametrize("key", ["model", "name"])
def test_without_a_stream_only_success_is_said(pushing, key):
    store_model(pushing, os.urandom(100))

    answer = pushing.post("push", {"model": "", key: pushing.model("V1"), "insecure": True, "stream": False})

    assert (answer.status, answer.json) == (200, {"status": "success"})
    assert answer.headers["Content-Type"] == "application/json"
    assert "v1" in pushing.registry.manifests


def test_a_model_that_is_not_here_is_said_in_two_lines(pushing):
    lines = pushing.push("a/absent:v1")

    assert lines[:2] == [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}]
    assert list(lines[2]) == ["error"]
    answer = pushing.post("push", {"name": f"{pushing.host}/a/absent", "insecure": True, "stream": False})
    assert answer.status == 500
    assert "not found" in answer.json["error"]
    assert pushing.registry.requests == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "model is required"),
        ({"model": "", "name": ""}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "http://h.example/a/m"}, 500, "insecure protocol http"),
    ],
)
def test_what_is_wrong_with_the_request_has_its_own_status(pushing, body, status, said):
    answer = pushing.post("push", body)

    assert (answer.status, answer.json) == (status, {"error": said})


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_has_the_words_that_clients_look_for(pushing, status):
    store_model(pushing, os.urandom(100))
    pushing.registry.faults.append(Fault("HEAD", "blobs", status=status, times=9))

    assert "access denied" in pushing.push()[-1]["error"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("PUT", "manifests", status=413, body=b"over quota"), "413: over quota"),
        (Fault("POST", "uploads", status=400, body=b"no"), "400: no"),
    ],
)
def test_other_refusals_have_other_words(pushing, fault, said):
    store_model(pushing, os.urandom(100))
    pushing.registry.faults.append(fault)

    assert pushing.push()[-1] == {"error": said}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PATCH", "uploads", cut_after=2 * MIB),
        Fault("PATCH", "uploads", status=503),
        Fault("PUT", "uploads", lose_reply=True),
        Fault("PUT", "manifests", status=502),
        Fault("HEAD", "blobs", status=429, headers={"Retry-After": "1"}),
    ],
    ids=["cut", "busy", "lost-answer", "manifest-busy", "too-many"],
)
def test_what_fails_on_the_way_is_overcome(pushing, fault):
    digests, raw = store_model(pushing, data := os.urandom(4 * MIB))
    pushing.registry.faults.append(Fault(**vars(fault)))

    assert words(pushing.push()) == pushed_words(digests)
    assert pushing.registry.blobs[digests[0]] == data
    assert pushing.registry.manifests["v1"][0] == raw


def test_parts_go_to_no_store_that_nobody_named(pushing):
    store_model(pushing, os.urandom(100))
    with faulty_registry() as inner:
        pushing.registry.part_store = inner.url

        assert "error" in pushing.push()[-1]

        assert inner.requests == []


def test_the_servers_own_key_signs(pushing):
    line = pushing.server.run("key", "show").stdout
    key = PublicKey.parse(line.strip())
    store_model(pushing, os.urandom(100))
    pushing.registry.keys = {"another"}
    assert key.fingerprint in pushing.push()[-1]["error"]

    pushing.registry.keys = {key.fingerprint}

    assert pushing.push()[-1] == {"status": "success"}
    path = pushing.server.data / "keys" / "id_ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("id_ed25519.pub").read_text() == line


def test_a_token_goes_to_its_own_server_alone(tmp_path):
    known = {"users": {"me": "secret"}, "asks_basic": True}
    (tmp_path / "token").write_text("me:secret\n")
    with faulty_registry(**known) as ours, faulty_registry(**known) as theirs:
        settings = {
            "TONNAGE_ALLOWED_HOSTS": ",".join(Origin.of(each.url).authority for each in (ours, theirs)),
            "TONNAGE_REMOTE_TOKENS": f"{ours.url}={tmp_path}/token",
        }
        with running_server(tmp_path / "data", settings) as server:
            mine, other = Pair(server, ours), Pair(server, theirs)
            for world in (mine, other):
                store_model(world, os.urandom(100))

            assert mine.push()[-1] == {"status": "success"}
            assert "access denied" in other.push()[-1]["error"]

            assert not any("Authorization" in request.headers for request in theirs.requests)


def test_a_client_that_leaves_stops_the_transfer(pushing):
    digests, _ = store_model(pushing, os.urandom(40 * MIB))
    pushing.registry.faults.append(Fault("PATCH", "uploads", slowly=True))
    body = json.dumps({"model": pushing.model(), "insecure": True}).encode()
    connection, _ = pushing.client.open("POST", "/api/push", body)
    wait_for(lambda: pushing.registry.patched_bytes >= MIB, 10, "the transfer to be under way")

    connection.close()

    wait_for(lambda: pushing.registry.broken_bodies > 0, 10, "the connection to end")
    assert digests[0] not in pushing.registry.blobs


def test_a_push_and_a_pull_leave_rows_and_say_where(pushing):
    _, raw = store_model(pushing, os.urandom(100), tag="audited")
    pushing.transfer("push", pushing.model("audited"))
    pushing.transfer("pull", pushing.model("audited"))

    trail = pushing.server.run("audit", "--repository", pushing.repository()).stdout

    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert f"{digest} to {pushing.registry.url}/{pushing.path}:audited" in trail
    assert f"{digest} from {pushing.registry.url}/{pushing.path}:audited" in trail


def store_index(world, *children, tag="v1"):
    """An index of manifests that are here; its digest and its bytes."""
    raw = json.dumps({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {"mediaType": media_type, "digest": digest, "size": size} for media_type, digest, size in children
        ],
    }).encode()  # fmt: skip
    assert world.admin.put_manifest(world.repository(), tag, raw, OCI_INDEX).status == 201
    return (OCI_INDEX, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw)), raw


def store_child(world, *layers, tag):
    digests, raw = store_model(world, *layers, tag=tag)
    return digests, (DOCKER_MANIFEST, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))


def test_an_index_is_pushed_after_all_that_it_lists(pushing):
    first, one = store_child(pushing, os.urandom(100), b"MIT", tag="one")
    second, two = store_child(pushing, os.urandom(100), b"MIT", tag="two")
    inner, _ = store_index(pushing, two, tag="inner")
    _, raw = store_index(pushing, one, inner, one)

    lines = pushing.push()

    assert lines[-1] == {"status": "success"}
    assert pushing.registry.manifests["v1"] == (raw, OCI_INDEX)
    assert list(pushing.registry.manifests) == [one[1], two[1], inner[1], "v1"]
    assert set(first) | set(second) == set(pushing.registry.blobs)
    assert words(lines).count("pushing manifest") == 2  # the last three follow each other


def test_an_index_is_pushed_whole_or_not_at_all(pushing):
    _, one = store_child(pushing, os.urandom(100), tag="one")
    _, two = store_child(pushing, os.urandom(100), tag="two")
    store_index(pushing, one, two)
    assert pushing.admin.request("DELETE", f"/v2/{pushing.repository()}/manifests/{two[1]}").status == 202

    lines = pushing.push()

    assert two[1] in lines[-1]["error"]
    assert "not here" in lines[-1]["error"]
    assert pushing.registry.requests == []


def test_indexes_are_not_followed_for_ever(pushing):
    _, child = store_child(pushing, os.urandom(100), tag="one")
    for tag in ("a", "b", "v1"):
        child, _ = store_index(pushing, child, tag=tag)

    assert "index of indexes of indexes" in pushing.push()[-1]["error"]
    assert pushing.registry.requests == []


FAR = {"X-Forwarded-For": "203.0.113.9"}


@pytest.mark.parametrize(
    ("scopes", "pull", "push"),
    [((), 403, 403), (("pull",), 403, 403), (("push",), 200, 200)],
)
def test_who_may_from_afar(pushing, scopes, pull, push):
    store_model(pushing, os.urandom(100))
    pushing.push()
    token = pushing.server.create_token(f"t{'-'.join(scopes)}", *scopes) if scopes else ""
    headers = FAR | ({"Authorization": f"Bearer {token}"} if token else {})
    body = {"model": pushing.model(), "insecure": True}

    assert pushing.client.post_json("/api/pull", body, headers=headers).status == pull
    assert pushing.client.post_json("/api/push", body, headers=headers).status == push


def test_rights_on_one_namespace_are_none_on_another(pushing):
    pushing.server.run("namespace", "create", "other")
    flags = ("--scope", "push", "--namespace", "other")
    token = pushing.server.run("token", "create", "narrow", *flags).stdout.split()[-1]
    body = {"model": pushing.model(), "insecure": True}

    for verb in ("pull", "push"):
        headers = FAR | {"Authorization": f"Bearer {token}"}
        assert pushing.client.post_json(f"/api/{verb}", body, headers=headers).status == 403
    assert pushing.registry.requests == []
