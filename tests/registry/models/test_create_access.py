"""Who may make which model of what, and that refusals tell nothing of what others have."""

from __future__ import annotations

import json

import pytest

from auth.tokens import AccessTokens
from storage.digest import Digest
from storage.reference import RepositoryName, Tag
from tests.made_models import NETWORK, digest_of, gguf_bytes
from tests.stored_models import push_layers

WEIGHTS = gguf_bytes("llama", tensors=True)
DIGEST = digest_of(WEIGHTS)
MODEL = "application/vnd.ollama.image.model"


@pytest.fixture
def send(client, people):
    def send(who, path, body, method="POST"):
        data = body if isinstance(body, bytes) else json.dumps(body)
        return client.open(path, method=method, data=data, headers=people[who], environ_overrides=NETWORK)

    return send


def create(send, who, **body):
    answer = send(who, "/api/create", {"stream": False} | body)
    return answer.status_code, answer.json


def test_whoever_may_push_makes_models_in_their_namespace(send, store):
    assert send("mine", f"/api/blobs/{DIGEST}", WEIGHTS).status_code == 201

    assert create(send, "mine", model="mine/x", files={"w.gguf": DIGEST}) == (200, {"status": "success"})

    assert store.repositories.tags(RepositoryName("mine/x")) == (["latest"], False)


def test_nobody_makes_models_in_the_namespace_of_another(send, store):
    send("mine", f"/api/blobs/{DIGEST}", WEIGHTS)

    assert create(send, "mine", model="theirs/x", files={"w.gguf": DIGEST})[0] == 403

    assert store.repositories.catalog() == ([], False)


def test_nobody_derives_from_what_they_may_not_read(send, store):
    push_layers(store, "theirs/model", [(MODEL, WEIGHTS)])

    answers = [create(send, "mine", model="mine/x", **{"from": f"theirs/{name}"}) for name in ("model", "absent")]

    assert [status for status, _ in answers] == [403, 403]
    assert str(answers[0]).replace("theirs/model", "") == str(answers[1]).replace("theirs/absent", "")


def test_what_is_public_may_be_derived_from(send, store):
    push_layers(store, "theirs/model", [(MODEL, WEIGHTS)])
    store.namespaces.set_private("theirs", False)

    assert create(send, "mine", model="mine/x", **{"from": "theirs/model"})[0] == 200


def test_what_is_public_and_absent_is_not_brought_into_anothers_namespace(send, store):
    store.namespaces.set_private("theirs", False)

    status, body = create(send, "mine", model="mine/x", **{"from": "theirs/absent"})

    assert (status, body) == (404, {"error": "model 'theirs/absent:latest' not found"})


def test_bytes_that_only_another_has_are_not_there(send, store):
    push_layers(store, "theirs/model", [(MODEL, WEIGHTS)])
    send("theirs", f"/api/blobs/{DIGEST}", WEIGHTS)
    absent = digest_of(b"absent")

    answers = [create(send, "mine", model="mine/x", files={"w.gguf": digest}) for digest in (DIGEST, absent)]

    assert answers[0] == (400, {"error": f'blob "{DIGEST}" not found'})
    assert answers[1] == (400, {"error": f'blob "{absent}" not found'})


def test_what_somebody_staged_is_not_for_a_bearer_token_that_covers_less(send, client, store):
    push_layers(store, "theirs/model", [(MODEL, WEIGHTS)])
    secret = AccessTokens(store.database).create("both", scopes=("push",), namespaces=("mine", "theirs"))
    whole = {"Authorization": f"Bearer {secret}"}
    scope = {"service": "tonnage", "scope": "repository:mine/x:pull,push"}
    asked = client.get("/v2/token", query_string=scope, auth=("token", secret), environ_overrides=NETWORK)
    narrow = {"Authorization": f"Bearer {asked.json['token']}"}

    def statuses(headers):
        said = {"model": "mine/x", "files": {"w.gguf": DIGEST}, "stream": False}
        found = client.head(f"/api/blobs/{DIGEST}", headers=headers, environ_overrides=NETWORK)
        made = client.post("/api/create", json=said, headers=headers, environ_overrides=NETWORK)
        return found.status_code, made.status_code

    assert statuses(whole) == (200, 200)
    store.repositories.remove_model(RepositoryName("mine/x"), Tag("latest"))
    store.blobs.unlink(RepositoryName("mine/x"), Digest.parse(DIGEST))
    assert statuses(narrow) == (404, 400)


def test_a_text_that_somebody_else_has_is_new_to_whoever_writes_it(send, store, client):
    send("theirs", f"/api/blobs/{DIGEST}", WEIGHTS)
    create(send, "theirs", model="theirs/x", files={"w.gguf": DIGEST}, system="a secret guess")
    send("mine", f"/api/blobs/{DIGEST}", WEIGHTS)

    answer = send("mine", "/api/create", {"model": "mine/x", "files": {"w.gguf": DIGEST}, "system": "a secret guess"})

    told = [json.loads(line)["status"] for line in answer.text.splitlines()]
    assert f"creating new layer {digest_of(b'a secret guess')}" in told


def test_a_token_that_only_asks_models_makes_none(client, store):
    secret = AccessTokens(store.database).create("asks", scopes=("infer",))
    headers = {"Authorization": f"Bearer {secret}"}

    for path, body in (("/api/create", b'{"model":"x/y","from":"z"}'), (f"/api/blobs/{DIGEST}", WEIGHTS)):
        assert client.post(path, data=body, headers=headers, environ_overrides=NETWORK).status_code == 403
