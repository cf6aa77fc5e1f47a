"""What the client asks of an account, answered by a server that has none."""

from __future__ import annotations

import uuid

import pytest

from tests.made_models import NETWORK, create
from tests.stored_models import push_layers


def test_trap_35_everybody_has_a_name_and_nobody_is_sent_to_sign_in(client):
    answer = client.post("/api/me")

    assert answer.status_code == 200
    assert answer.json["name"] == "anonymous"
    assert answer.json["plan"] == "free"
    assert uuid.UUID(answer.json["id"])


def test_a_token_is_known_by_its_name(client, people):
    seen = [client.post("/api/me", headers=people[who], environ_overrides=NETWORK).json for who in ("mine", "theirs")]

    assert [each["name"] for each in seen] == ["mine", "theirs"]
    assert len({each["id"] for each in seen}) == 2


def test_a_stranger_from_elsewhere_is_refused_without_a_401(client):
    assert client.post("/api/me", environ_overrides=NETWORK).status_code == 403


def test_there_is_nothing_to_sign_out_of(client):
    for answer in (client.post("/api/signout"), client.delete("/api/user/keys/c3NoLWVkMjU1MTk")):
        assert (answer.status_code, answer.data) == (200, b"null")


@pytest.mark.parametrize(("route", "what"), [("web_search", "web search"), ("web_fetch", "web fetch")])
def test_there_is_no_cloud(client, route, what):
    answer = client.post(f"/api/experimental/{route}", data=b'{"query": "x", "url": "http://x"}')
    empty = client.post(f"/api/experimental/{route}", data=b"")

    assert (answer.status_code, answer.json) == (403, {"error": f"ollama cloud is disabled: {what} is unavailable"})
    assert (empty.status_code, empty.json) == (400, {"error": "missing request body"})


def test_what_is_stored_is_recommended_the_newest_first(client, tiny):
    create(client, model="newer", **{"from": "tiny"}, info={"context_length": 64})

    found = client.get("/api/experimental/model-recommendations").json["recommendations"]

    assert [each["model"] for each in found] == ["newer:latest", "tiny:latest"]
    assert found[0] == {"model": "newer:latest", "description": "llama, 110K, Q4_1", "context_length": 64}


def test_nothing_is_recommended_of_an_empty_store(client):
    assert client.get("/api/experimental/model-recommendations").json == {"recommendations": []}


def test_nobody_is_recommended_what_they_may_not_see(client, people, store, weights):
    push_layers(store, "theirs/model", [("application/vnd.ollama.image.model", weights)])

    def seen(who):
        answer = client.get("/api/experimental/model-recommendations", headers=people[who], environ_overrides=NETWORK)
        return [each["model"] for each in answer.json["recommendations"]]

    assert seen("mine") == []
    assert seen("theirs") == ["theirs/model:latest"]
