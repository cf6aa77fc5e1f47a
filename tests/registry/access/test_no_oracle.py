"""Who may not read a private repository cannot tell it from one that is not there."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPMessage

import pytest

from tests.client import Answer
from tests.registry.access.callers import Headers, basic, signed_bearer
from tests.registry.access.expectations import model_asks, registry_asks
from tests.registry.access.test_matrix import MUTATIONS
from tests.registry.access.world import (
    ABSENT,
    NO_NAMESPACE,
    NO_REPOSITORY,
    OTHER,
    PRIVATE,
    PUBLIC,
    Wire,
    World,
)
from tests.registry.conformance.wire import OCI_MANIFEST, digest_of
from tests.server import NODES

_OF_EACH_ANSWER = {"date", "x-request-id"} | ({"tonnage-node"} if NODES > 1 else set())
BODIES = ("generate", "chat", "embed", "embeddings", "show", "create", "copy", "push", "pull")


def strangers(world: World) -> dict[str, Headers]:
    """Who may not read `vault`: nobody, and those who are known for something else."""
    wire, elsewhere = Wire(world.host), f"repository:{OTHER}:pull,push,delete registry:catalog:*"
    other = world.secrets["other"]
    return {
        "anonymous": {},
        "wrong token": {"Authorization": "Bearer tng_none"},
        "token of another namespace": {"Authorization": f"Bearer {other}"},
        "the same by Basic": {"Authorization": basic(other)},
        "the same, tireless": {"Authorization": f"Bearer {other}", "User-Agent": "ollama-transfer/1"},
        "key of another namespace": {"Authorization": f"Bearer {signed_bearer(wire, world.keys['other'], elsewhere)}"},
        "unknown key": {"Authorization": f"Bearer {signed_bearer(wire, world.keys['unknown'], '')}"},
    }


@pytest.fixture(scope="module", params=["network", "loopback"])
def world(request: pytest.FixtureRequest) -> World:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, World)
    return found


Request = tuple[str, str, Headers, bytes]


def registry_requests(world: World, name: str) -> Iterator[Request]:
    """What can be asked of a repository; digests are those of the private one, whatever the name."""
    private, content = PRIVATE, world.content[PRIVATE]
    for ask in registry_asks(world, private):
        yield ask.method, ask.target.replace(private, name), {}, ask.body
    for change in MUTATIONS.values():
        ask = change(world, private)
        if ask.is_registry and ask.repository == private:
            yield ask.method, ask.target.replace(private, name), {"Content-Type": OCI_MANIFEST}, ask.body
    for path in ("tags/list?n=1", "tags/list?n=0", "tags/list?last=v1", "tags/list?n=x", "manifests/latest"):
        yield "GET", f"/v2/{name}/{path}", {}, b""
    blob, manifest = f"/v2/{name}/blobs/{digest_of(content.layer)}", f"/v2/{name}/manifests/v1"
    yield "GET", f"/v2/{name}/referrers/{digest_of(content.manifest)}?artifactType=x", {}, b""
    yield "GET", blob, {"Range": "bytes=0-3"}, b""
    yield "GET", blob, {"If-None-Match": f'"{digest_of(content.layer)}"'}, b""
    yield "GET", blob, {"If-Match": '"other"'}, b""
    yield "GET", f"{blob}?by=x&expires=99999999999&key=x&signature=x", {}, b""
    yield "GET", manifest, {"If-None-Match": f'"{digest_of(content.manifest)}"'}, b""
    yield "GET", manifest, {"Accept": "text/plain"}, b""
    yield "PUT", manifest, {"If-None-Match": "*"}, content.manifest
    yield "PUT", manifest, {"If-Match": f'"{digest_of(content.manifest)}"'}, content.manifest
    yield "PUT", f"/v2/{name}/manifests/{digest_of(content.manifest)}?tag=v1", {}, content.manifest
    yield "POST", f"/v2/{name}/blobs/uploads/?mount={digest_of(content.layer)}", {}, b""
    yield "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(content.layer)}", {}, b""
    yield "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(content.layer)}", {}, content.layer
    yield "GET", f"/v2/token?scope=repository:{name}:pull,push", {}, b""


def native_requests(name: str) -> Iterator[Request]:
    for ask in model_asks(name):
        yield ask.method, ask.target, {}, ask.body
    for tag in ("v1", "latest"):
        for route in BODIES:
            body = {"model": f"{name}:{tag}", "source": f"{name}:{tag}", "destination": "other/copy", "from": name}
            yield "POST", f"/api/{route}", {}, json.dumps({**body, "prompt": "x", "input": "x"}).encode()
        yield "DELETE", "/api/delete", {}, json.dumps({"model": f"{name}:{tag}"}).encode()


@pytest.mark.parametrize("absent", [NO_REPOSITORY, NO_NAMESPACE])
def test_a_private_repository_answers_as_a_missing_one(world, absent):
    wrong, count, wire = [], 0, Wire(world.host)
    is_local = world.data.parent.name.startswith("loopback")
    for caller, headers in strangers(world).items():
        asked = [registry_requests(world, PRIVATE), registry_requests(world, absent)]
        if not is_local:  # where inference is everybody's, so are the names of models
            asked = [[*each, *native_requests(n)] for each, n in zip(asked, (PRIVATE, absent), strict=True)]
        for here, there in zip(*asked, strict=True):
            seen = [seen_in(wire.send(m, t, {**headers, **more}, b), n) for (m, t, more, b), n in
                    ((here, PRIVATE), (there, absent))]  # fmt: skip
            count += 1
            if seen[0] != seen[1]:
                wrong.append(f"{caller}: {here[0]} {here[1]} {here[2]} {here[3][:60]!r}\n  {seen[0]}\n  {seen[1]}")

    assert not wrong, f"{len(wrong)} of {count} tell:\n" + "\n".join(wrong[:20])
    assert count > 200


def seen_in(answer: Answer, name: str) -> tuple[int, list[tuple[str, str]], str]:
    """All that an answer shows, with the name that was asked for, and its namespace, taken out; bearers are opaque."""
    status, body = answer.status, answer.body.decode()
    if '"token"' in body:
        body = str({key: value for key, value in json.loads(body).items() if key == "expires_in"})
    named = [(key.lower(), hidden(value, name)) for key, value in answer.headers.items()]
    if '"expires_in"' in answer.body.decode():
        named = [each for each in named if each[0] != "content-length"]  # of a text with the name in it, in base64
    return status, [each for each in named if each[0] not in _OF_EACH_ANSWER], hidden(body, name)


def hidden(text: str, name: str) -> str:
    namespace = name.partition("/")[0]
    return text.replace(name, "NAME").replace(f" {namespace}", " NAMESPACE").replace(f"add {namespace}", "NAMESPACE")


def test_a_token_for_a_private_repository_covers_nothing_for_strangers(network):
    wire = Wire(network.host)
    for caller, headers in strangers(network).items():
        if "key" in caller or caller == "wrong token":
            continue  # what they sign with is not kept here, and what is wrong gets no token
        answer = wire.send("GET", f"/v2/token?scope=repository:{PRIVATE}:pull,push,delete,*", headers)
        bearer = {"Authorization": f"Bearer {answer.json['token']}"}

        assert wire.send("GET", f"/v2/{PRIVATE}/manifests/v1", bearer).status == 401, caller


@pytest.mark.parametrize("path", ["/v2/_catalog", "/api/tags", "/api/ps"])
def test_lists_name_no_private_repository(network, path):
    wire = Wire(network.host)
    for caller, headers in strangers(network).items():
        answer = wire.send("GET", path, headers)

        assert b"vault" not in answer.body, caller
        assert "vault" not in str(answer.headers), caller


def test_pages_of_the_catalog_do_not_show_where_something_is_left_out(network):
    wire, headers = Wire(network.host), {"Authorization": f"Bearer {network.secrets['other']}"}

    def page(query: str) -> tuple[list[str], bool]:
        answer = wire.send("GET", f"/v2/_catalog?{query}", headers)
        return answer.json["repositories"], "Link" in answer.headers

    seen = [OTHER] if page("")[0] == [OTHER] else sorted([OTHER, PUBLIC])
    assert page("") == (seen, False)
    for n in range(1, len(seen) + 1):
        assert page(f"n={n}") == (seen[:n], n < len(seen))
    assert page(f"last={PRIVATE}") == page(f"last={NO_REPOSITORY}") == page("last=zzz") == ([], False)
    assert page("n=1&last=v") == page("n=1&last=vault/a") == ([], False)


class TestBytesOfOthers:
    """A stranger with a repository of their own, and the digests of what is in `vault`."""

    MINE = "other/mine"

    @pytest.fixture
    def send(self, network: World) -> Callable[..., Answer]:
        wire, own = Wire(network.host), {"Authorization": f"Bearer {network.secrets['other']}"}

        def send(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
            return wire.send(method, path, {**own, **(headers or {})}, body)

        return send

    @pytest.fixture(autouse=True)
    def never_get_them(self, network: World, send: Callable[..., Answer]) -> Iterator[None]:
        yield
        content = network.content[PRIVATE]
        for data in (content.config, content.layer):
            assert send("HEAD", f"/v2/{self.MINE}/blobs/{digest_of(data)}").status == 404
            assert data not in send("GET", f"/v2/{self.MINE}/blobs/{digest_of(data)}").body

    @pytest.mark.parametrize(
        "query",
        [
            "?mount={}&from=vault/model",
            "?mount={}",
            "?mount={}&from=vault/ghost",
            "?mount={}&from=",
            "?mount={}&from=../vault/model",
            "?mount={}&from=vault/model&from=other/model",
            "?mount={}&from=other/model",
            "?mount={}&from=other/mine",
            "?digest={}",
            "?digest={}&mount={}",
        ],
    )
    def test_no_mount_and_no_shortcut_gives_them(self, network, send, query):
        digests = (digest_of(network.content[PRIVATE].layer), ABSENT)
        held, absent = (
            send("POST", f"/v2/{self.MINE}/blobs/uploads/{query.replace('{}', digest)}") for digest in digests
        )

        assert held.status == absent.status == 202
        assert shape(held.headers) == shape(absent.headers)
        assert held.body == absent.body == b""

    def test_a_bearer_token_that_names_the_source_does_not_help(self, network, send):
        asked = f"/v2/token?scope=repository:{self.MINE}:pull,push&scope=repository:{PRIVATE}:pull"
        bearer = {"Authorization": f"Bearer {send('GET', asked).json['token']}"}
        digest = digest_of(network.content[PRIVATE].layer)

        for source in (PRIVATE, NO_REPOSITORY, NO_NAMESPACE):
            path = f"/v2/{self.MINE}/blobs/uploads/?mount={digest}&from={source}"
            assert send("POST", path, headers=bearer).status == 202, source

    def test_a_narrow_token_is_challenged_alike_for_any_source(self, network, send):
        asked = f"/v2/token?scope=repository:{self.MINE}:pull,push"
        bearer = {"Authorization": f"Bearer {send('GET', asked).json['token']}"}
        digest = digest_of(network.content[PRIVATE].layer)

        answers = {
            send("POST", f"/v2/{self.MINE}/blobs/uploads/?mount={digest}&from={source}", headers=bearer).status
            for source in (PRIVATE, NO_REPOSITORY, NO_NAMESPACE)
        }

        assert len(answers) == 1

    def test_a_session_closes_with_bytes_only(self, network, send):
        statuses = []
        for digest in (digest_of(network.content[PRIVATE].layer), ABSENT):
            location = send("POST", f"/v2/{self.MINE}/blobs/uploads/").headers["Location"]
            path = location.removeprefix(f"http://{network.host}")
            answer = send("PUT", f"{path}?digest={digest}")
            statuses.append((answer.status, answer.body.replace(digest.encode(), b"DIGEST")))

        assert statuses[0] == statuses[1]
        assert statuses[0][0] == 400

    def test_no_manifest_may_list_them(self, network, send):
        answers = []
        for digest in (digest_of(network.content[PRIVATE].layer), ABSENT):
            manifest = network.content[PRIVATE].manifest.replace(
                digest_of(network.content[PRIVATE].layer).encode(), digest.encode()
            )
            answer = send("PUT", f"/v2/{self.MINE}/manifests/v1", manifest, {"Content-Type": OCI_MANIFEST})
            answers.append((answer.status, answer.body.replace(digest.encode(), b"DIGEST")))

        assert answers[0] == answers[1]
        assert answers[0][0] == 400

    def test_no_index_may_list_a_manifest_of_theirs(self, network, send):
        answers = []
        for digest in (digest_of(network.content[PRIVATE].manifest), ABSENT):
            entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(network.content[PRIVATE].manifest)}
            media_type = "application/vnd.oci.image.index.v1+json"
            body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]}).encode()
            answer = send("PUT", f"/v2/{self.MINE}/manifests/index", body, {"Content-Type": media_type})
            answers.append((answer.status, answer.body.replace(digest.encode(), b"DIGEST")))

        assert answers[0] == answers[1]

    def test_referrers_of_their_manifests_stay_theirs(self, network, send):
        found = send("GET", f"/v2/{self.MINE}/referrers/{digest_of(network.content[PRIVATE].manifest)}")

        assert found.status in (200, 404)
        assert digest_of(network.content[PRIVATE].referrer).encode() not in found.body

    def test_a_session_of_theirs_is_unknown(self, network, send):
        """Whatever repository the stranger names, and by whatever method."""
        owner = {"Authorization": f"Bearer {network.secrets['bound']}"}
        opened = Wire(network.host).send("POST", f"/v2/{PRIVATE}/blobs/uploads/", owner)
        upload = opened.headers["Location"].rpartition("/")[2]
        try:
            for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE"):
                mine = send(method, f"/v2/{self.MINE}/blobs/uploads/{upload}?digest={ABSENT}", b"")
                assert mine.status == 404, method
                assert send(method, f"/v2/{PRIVATE}/blobs/uploads/{upload}?digest={ABSENT}").status == 401, method
        finally:
            path = f"/v2/{PRIVATE}/blobs/uploads/{upload}"
            assert Wire(network.host).send("DELETE", path, owner).status == 204

    def test_a_signed_address_of_another_blob_opens_none(self, network, send):
        """Whoever may read one blob has an address for it; its query is worth nothing elsewhere."""
        own = digest_of(network.content[OTHER].layer)
        location = send("GET", f"/v2/{OTHER}/blobs/{own}").headers["Location"]
        query = location.partition("?")[2]
        wire = Wire(network.host)
        for repository in (PRIVATE, "vault/ghost", "other/../vault/model"):
            path = f"/v2/{repository}/blobs/{digest_of(network.content[PRIVATE].layer)}?{query}"
            assert wire.send("GET", path, {}).status in (401, 404), path


def shape(headers: HTTPMessage) -> dict[str, str]:
    """Headers without what is new each time."""
    changing = {"date", "x-request-id", "location", "docker-upload-uuid"}
    return {key.lower(): value for key, value in headers.items() if key.lower() not in changing}


def test_how_long_a_refusal_takes_is_reported(network):
    """No assertion: clocks of busy machines prove nothing. The medians are printed for people to compare."""
    wire, blob = Wire(network.host), digest_of(network.content[PRIVATE].layer)
    for caller, headers in strangers(network).items():
        times: dict[str, list[float]] = {PRIVATE: [], NO_REPOSITORY: [], NO_NAMESPACE: []}
        for _ in range(40):
            for name, found in times.items():
                began = time.perf_counter()
                wire.send("GET", f"/v2/{name}/blobs/{blob}", headers)
                found.append(time.perf_counter() - began)
        medians = {name: f"{statistics.median(found) * 1000:.2f} ms" for name, found in times.items()}
        print(f"{caller}: {medians}")
