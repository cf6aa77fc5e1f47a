"""Lists over HTTP: what they cost, what they show to whom, how their pages join."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert

from auth.identity import Anonymous, Identity, KeyHolder, Role, TokenHolder, TokenScope
from auth.policy import Decision, Mode, Right, Situation, decide, may
from auth.readable import among_models, in_catalog
from auth.scopes import Scope
from auth.tokens import AccessTokens
from registry.app import create_app
from registry.config import load_config
from registry.models import listing
from storage import models as rows
from storage.digest import Digest
from storage.listing import Readable
from storage.reference import ModelName, RepositoryName, Tag
from storage.store import Store
from tests.backends import environ_of
from tests.stored_models import open_store, push_model

FAR_AWAY = {"X-Forwarded-For": "203.0.113.9"}
SUBJECT = Digest.of(b"subject")
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def store(tmp_path: Path, tiny_gguf: Path) -> Store:
    """Two models each in a public namespace and in two private ones, and an image beside them."""
    store = open_store(tmp_path)
    for name in ("public/a", "public/b", "alice/a", "alice/b", "bob/a", "bob/b"):
        push_model(store, name, tiny_gguf, config={"model_type": "1M", "model_family": "llama"})
    store.namespaces.set_private("public", False)
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    store.repositories.put_manifest(RepositoryName("public/image"), Tag("v1"), raw)
    return store


@pytest.fixture
def client(store: Store, tmp_path: Path) -> FlaskClient:
    return create_app(load_config(None, {"TONNAGE_DATA": str(tmp_path), **environ_of(tmp_path)})).test_client()


def headers(store: Store, *scopes: str, namespaces: tuple[str, ...] = ()) -> dict[str, str]:
    secret = AccessTokens(store.database).create("-".join(scopes), scopes=scopes, namespaces=namespaces)
    return {"Authorization": f"Bearer {secret}", **FAR_AWAY}


def get(client: FlaskClient, path: str, **options: Any) -> Any:
    answer = client.get(path, base_url="http://127.0.0.1:11434", **options)
    assert answer.status_code == 200, answer.text
    return answer


@contextlib.contextmanager
def statements(client: FlaskClient) -> Iterator[list[str]]:
    engine = client.application.extensions["tonnage.store"].database.engine
    sent: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    "path", ["/v2/public/a/tags/list", "/v2/_catalog", f"/v2/public/a/referrers/{SUBJECT}", "/api/tags", "/v1/models"]
)
def test_a_list_is_one_query_beside_those_that_tell_who_asks(client: FlaskClient, store: Store, path: str) -> None:
    reader = headers(store, "pull", namespaces=("alice",))
    get(client, path, headers=reader)  # models are described now

    with statements(client) as sent:
        get(client, path, headers=reader)

    others = [statement for statement in sent if "access_tokens" in statement or "SELECT namespaces" in statement]
    assert len(sent) - len(others) == 1
    assert len(others) <= 2


@pytest.mark.parametrize(
    ("scopes", "namespaces", "shown"),
    [
        (("pull",), ("alice",), ["alice", "public"]),
        (("pull",), ("alice", "nobody"), ["alice", "public"]),
        (("delete",), ("alice",), ["public"]),
        (("pull",), (), ["alice", "bob", "public"]),
        (("admin",), (), ["alice", "bob", "public"]),
    ],
)
def test_the_catalog_shows_what_may_be_pulled_and_hides_the_rest_from_pages_too(
    client: FlaskClient, store: Store, scopes: tuple[str, ...], namespaces: tuple[str, ...], shown: list[str]
) -> None:
    caller = headers(store, *scopes, namespaces=namespaces)
    expected = [f"{space}/{model}" for space in shown for model in ("a", "b")] + ["public/image"]

    whole = get(client, "/v2/_catalog", headers=caller)
    pages = [whole.json["repositories"] for whole in follow(client, "/v2/_catalog?n=2", caller)]

    assert whole.json["repositories"] == expected
    assert pages == [expected[start : start + 2] for start in range(0, len(expected), 2)]
    assert "Link" not in whole.headers


def follow(client: FlaskClient, path: str, caller: dict[str, str]) -> Iterator[Any]:
    for _ in range(100):
        answer = get(client, path, headers=caller)
        yield answer
        if "Link" not in answer.headers:
            return
        path = answer.headers["Link"].partition(">")[0].removeprefix("<")


@pytest.mark.parametrize(
    ("scopes", "namespaces", "shown"),
    [
        (("pull",), ("alice",), {"alice", "public"}),
        (("infer",), ("bob",), {"bob", "public"}),
        (("delete",), ("alice",), {"public"}),
        (("admin",), (), {"alice", "bob", "public"}),
    ],
)
def test_models_are_listed_to_those_who_may_use_them(
    client: FlaskClient, store: Store, scopes: tuple[str, ...], namespaces: tuple[str, ...], shown: set[str]
) -> None:
    listed = get(client, "/api/tags", headers=headers(store, *scopes, namespaces=namespaces)).json["models"]

    assert {model["name"] for model in listed} == {f"{space}/{model}:latest" for space in shown for model in "ab"}


def test_a_model_is_described_once_and_forgotten_when_it_goes(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = get(client, "/api/tags").json["models"]
    monkeypatch.setattr(listing, "summary", None)  # nobody reads a model again

    assert get(client, "/api/tags").json["models"] == before
    name = ModelName.parse("public/a")
    store.repositories.delete_manifest(name.repository, name.tag)
    assert "public/a:latest" not in {model["name"] for model in get(client, "/api/tags").json["models"]}
    store.repositories.delete_manifest(
        RepositoryName("public/b"), store.repositories.get_manifest(RepositoryName("public/b"), Tag("latest")).digest
    )
    assert len(get(client, "/api/tags").json["models"]) == len(before) - 2


def test_a_model_in_the_list_has_all_that_clients_read(client: FlaskClient, store: Store) -> None:
    digest = store.repositories.get_manifest(RepositoryName("public/a"), Tag("latest")).digest
    first, again = (
        next(model for model in get(client, "/api/tags").json["models"] if model["name"] == "public/a:latest")
        for _ in range(2)
    )

    assert first == again
    assert first.keys() == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
    assert (first["model"], first["digest"]) == ("public/a:latest", digest.encoded)
    assert first["details"]["parameter_size"] == "1M"


def test_the_newest_model_comes_first(client: FlaskClient, store: Store, tiny_gguf: Path) -> None:
    get(client, "/api/tags")
    push_model(store, "alice/a", tiny_gguf, config={"model_type": "2M"})

    listed = get(client, "/api/tags").json["models"]

    assert (listed[0]["name"], listed[0]["details"]["parameter_size"]) == ("alice/a:latest", "2M")
    times = [model["modified_at"] for model in listed]
    assert times == sorted(times, reverse=True)


def referrer(number: int, repository_id: int, size: int) -> dict[str, Any]:
    return {
        "id": 1000 + number,
        "repository_id": repository_id,
        "digest": str(Digest.of(f"{number}".encode())),
        "media_type": INDEX,
        "artifact_type": f'application/vnd."{number % 2}"+json',
        "subject": str(SUBJECT),
        "annotations": {"n": f"{number}", "é": "x" * (size // 2)} if number % 3 else {},
        "size": size,
        "raw": b"{}",
        "pushed_at": 0.0,
    }


@pytest.mark.parametrize(("count", "size"), [(0, 100), (5, 100), (4500, 100), (9, 2**20), (3, 2**22)])
@pytest.mark.parametrize("kind", ["", "?artifactType=application/vnd.%221%22+json"])
def test_pages_of_referrers_are_indexes_that_join_to_the_whole(
    client: FlaskClient, store: Store, count: int, size: int, kind: str
) -> None:
    with store.database.write() as session:
        repository = session.query(rows.Repository).filter_by(name="public/a").one().id
        if count:
            session.execute(insert(rows.Manifest), [referrer(number, repository, size) for number in range(count)])
    pages = list(follow(client, f"/v2/public/a/referrers/{SUBJECT}{kind}", FAR_AWAY))

    found = [descriptor for page in pages for descriptor in page.json["manifests"]]
    wanted = [number for number in range(count) if not kind or number % 2]
    assert [each["digest"] for each in found] == [str(Digest.of(f"{number}".encode())) for number in wanted]
    assert all(("annotations" in each) == bool(number % 3) for each, number in zip(found, wanted, strict=True))
    assert {page.content_type for page in pages} == {INDEX}
    assert all(len(page.data) < 2**22 for page in pages)
    assert all(("OCI-Filters-Applied" in page.headers) == bool(kind) for page in pages)
    assert (len(pages) > 1) == (len(wanted) > 2000 or size * (len(wanted) - 1) >= 7 * 2**19)
    assert all(page.json["manifests"] for page in pages[1:])
    assert all(urlsplit(page.request.full_path).path.startswith("/v2/public/a/") for page in pages)


@pytest.mark.parametrize("last", ["", "x", "-1", "%00", "9" * 30, "²", str(SUBJECT)])
def test_a_place_that_no_link_named_is_the_beginning(client: FlaskClient, store: Store, last: str) -> None:
    with store.database.write() as session:
        repository = session.query(rows.Repository).filter_by(name="public/a").one().id
        session.execute(insert(rows.Manifest), [referrer(1, repository, 10)])

    answer = get(client, f"/v2/public/a/referrers/{SUBJECT}?last={last}")

    assert [each["annotations"]["n"] for each in answer.json["manifests"]] == ["1"]


SPACES = ("public", "alice", "bob")
names = st.builds("{}/{}".format, st.sampled_from(SPACES), st.sampled_from(["a", "b"]))
ceilings = st.none() | st.lists(
    st.builds(
        lambda name, actions: Scope.of("repository", name, actions),
        names,
        st.lists(st.sampled_from(["pull", "push"])),
    ),
    max_size=3,
).map(tuple)
identities = st.one_of(
    st.builds(Anonymous, ceiling=ceilings),
    st.builds(
        KeyHolder,
        fingerprint=st.just("f"),
        roles=st.dictionaries(st.sampled_from(SPACES), st.sampled_from(Role)),
        ceiling=ceilings,
    ),
    st.builds(
        TokenHolder,
        token_id=st.just("t"),
        name=st.just("t"),
        scopes=st.frozensets(st.sampled_from(TokenScope)),
        namespaces=st.none() | st.frozensets(st.sampled_from(SPACES)),
        ceiling=ceilings,
    ),
)


@settings(max_examples=300)
@given(
    identity=identities,
    situation=st.builds(Situation, st.sampled_from(Mode), st.booleans()),
    name=names.map(RepositoryName.parse),
)
def test_what_may_be_listed_at_once_is_what_may_be_read_one_by_one(
    identity: Identity, situation: Situation, name: RepositoryName
) -> None:
    def is_private(namespace: str) -> bool:
        return namespace != "public"

    def shows(readable: Readable | None) -> bool:
        return (
            readable is None
            or not is_private(name.namespace)
            or name.namespace in readable.namespaces
            or str(name) in readable.repositories
        )

    wanted = (name, "pull")
    is_seen = decide(Right.READ_MODELS, [wanted], identity, situation, is_private) is Decision.ALLOW
    assert shows(among_models(identity, situation)) == is_seen
    is_pullable = may(wanted, replace(identity, ceiling=None), situation, is_private)
    assert shows(in_catalog(identity, situation)) == is_pullable
