"""POST /api/copy, and DELETE /api/delete in the words of the dialect."""

from __future__ import annotations

import pytest

from storage.reference import RepositoryName, Tag
from tests.made_models import NETWORK, ask, create, digest_of, layer, names, show
from tests.stored_models import MANIFEST_TYPE, push_layers


def copy(client, source, destination, **more):
    answer = ask(client, "/api/copy", source=source, destination=destination, **more)
    return answer.status_code, answer.data


def test_a_copy_is_the_same_manifest_under_another_name(client, tiny, store):
    keys = set(store.driver.keys(""))

    assert copy(client, "tiny", "team/other:v1") == (200, b"")

    models = client.get("/api/tags").json["models"]
    assert sorted(model["name"] for model in models) == ["team/other:v1", "tiny:latest"]
    assert len({model["digest"] for model in models}) == 1
    assert set(store.driver.keys("")) == keys


def test_a_copy_lives_on_without_its_source(client, tiny, store, weights):
    copy(client, "tiny", "other")
    client.delete("/api/delete", data=b'{"model": "tiny"}')

    store.collector.sweep()

    assert names(client) == ["other:latest"]
    assert layer(client, "library/other", "model") == weights


def test_trap_58_a_name_that_is_there_is_replaced(client, tiny):
    create(client, model="other", **{"from": "tiny"}, system="before")

    assert copy(client, "tiny", "Other") == (200, b"")

    assert "system" not in show(client, "other")
    assert names(client) == ["other:latest", "tiny:latest"]


def test_trap_58_a_copy_to_itself_changes_nothing(client, tiny):
    before = client.get("/api/tags").json

    assert copy(client, "tiny", "TINY:Latest") == (200, b"")

    assert client.get("/api/tags").json == before


def test_trap_55_a_source_is_found_in_any_case(client, tiny):
    create(client, model="x:Q4", **{"from": "tiny"})

    assert copy(client, "X:q4", "y")[0] == 200


def test_what_a_name_named_before_goes_unless_something_names_it(client, tiny):
    create(client, model="x:one", **{"from": "tiny"}, system="s")
    create(client, model="x:two", **{"from": "tiny"}, system="t")
    listed = {model["name"]: model["digest"] for model in client.get("/api/tags").json["models"]}

    copy(client, "x:one", "x:two")

    app_store = client.application.extensions["tonnage.store"]
    app_store.namespaces.set_private("library", False)
    assert client.get(f"/v2/library/x/manifests/sha256:{listed['x:one']}").status_code == 200
    assert client.get(f"/v2/library/x/manifests/sha256:{listed['x:two']}").status_code == 404


@pytest.mark.parametrize(
    ("source", "destination", "status", "message"),
    [
        ("", "x", 400, 'source \\"\\" is invalid'),
        ("a b", "x", 400, 'source \\"a b\\" is invalid'),
        ("tiny", "", 400, 'destination \\"\\" is invalid'),
        ("tiny", "a/b/c/d", 400, 'destination \\"a/b/c/d\\" is invalid'),
        ("absent", "x", 404, 'model \\"absent\\" not found'),
        ("team/absent:v1", "x", 404, 'model \\"team/absent:v1\\" not found'),
        ("tiny:other", "x", 404, 'model \\"tiny:other\\" not found'),
        ("tiny:local:cloud", "x", 400, "use either :local or :cloud, not both"),
    ],
)
def test_what_cannot_be_copied_is_said(settled, source, destination, status, message):
    answer = copy(settled, source, destination)

    assert answer[0] == status
    assert message.encode() in answer[1]
    assert names(settled) == ["tiny:latest"]


def test_an_index_is_copied_with_what_it_lists(client, store):
    child = push_layers(store, "team/multi:child", [("application/x", b"layer")])
    size = len(store.repositories.get_manifest(RepositoryName("team/multi"), child).raw)
    kind = "application/vnd.oci.image.index.v1+json"
    listed = f'{{"mediaType":"{MANIFEST_TYPE}","digest":"{child}","size":{size}}}'
    raw = f'{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{listed},{listed}]}}'.encode()
    store.repositories.put_manifest(RepositoryName("team/multi"), Tag("all"), raw, kind)

    assert copy(client, "team/multi:all", "other/multi") == (200, b"")

    other = RepositoryName("other/multi")
    assert store.repositories.get_manifest(other, Tag("latest")).raw == raw
    assert store.repositories.get_manifest(other, child)


def test_rights_on_both_sides_are_asked_for(client, people, store, tiny):
    push_layers(store, "mine/model:v1", [("application/x", b"mine")])
    push_layers(store, "theirs/model:v1", [("application/x", b"theirs")])

    def ask_as(who, source, destination):
        body = f'{{"source": "{source}", "destination": "{destination}"}}'
        return client.post("/api/copy", data=body, headers=people[who], environ_overrides=NETWORK).status_code

    assert ask_as("mine", "mine/model:v1", "mine/other") == 200
    assert ask_as("mine", "mine/model:v1", "theirs/other") == 403
    assert ask_as("mine", "theirs/model:v1", "mine/stolen") == 403
    assert ask_as("mine", "theirs/absent:v1", "mine/stolen") == 403
    assert "mine/stolen:latest" not in names(client)


def test_trap_56_a_tag_called_cloud_can_be_deleted(client, store, weights):
    push_layers(store, "x:cloud", [("application/vnd.ollama.image.model", weights)])

    answer = client.delete("/api/delete", data=b'{"model": "x:cloud"}')

    assert answer.status_code == 200
    assert names(client) == []


@pytest.mark.parametrize("name", ["absent:cloud", "absent:20b-cloud"])
def test_a_cloud_name_that_is_not_here_is_missing_under_its_own_name(client, name):
    answer = client.delete("/api/delete", data=f'{{"model": "{name}"}}')

    assert (answer.status_code, answer.json) == (404, {"error": f"model '{name}' not found"})


def test_bytes_of_a_created_model_go_at_once_where_that_is_asked_for(client, tiny, store):
    client.delete("/api/delete", data=b'{"model": "tiny", "now": true}')

    assert list(store.driver.keys("")) == []


def test_the_trail_tells_of_copies_and_creates(client, tiny, app):
    create(client, model="x", **{"from": "tiny"}, system="s")
    copy(client, "tiny", "x")

    with app.app_context():
        events = [
            (each.what, each.repository, each.reference) for each in app.extensions["tonnage.records"].trail.events()
        ]
    assert [each for each in events if each[:2] == ("push", "library/x")] == [("push", "library/x", "latest")] * 2
    assert ("tag.move", "library/x", "latest") in events


def test_a_copied_manifest_keeps_its_digest(client, store):
    digest = push_layers(store, "a/b:v1", [("application/x", b"bytes")])

    copy(client, "a/b:v1", "c/d:v1")

    assert store.repositories.get_manifest(RepositoryName("c/d"), Tag("v1")).digest == digest
    assert digest_of(store.repositories.get_manifest(RepositoryName("c/d"), digest).raw) == str(digest)
