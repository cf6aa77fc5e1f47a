from __future__ import annotations

import pytest

from auth.keys import PrivateKey
from storage.db import Database
from tests.auth.conftest import basic
from tests.auth.vectors import FINGERPRINT, NONCE, SCOPE, SERVICE, TARGET, TOKEN_HEADER

EXAMPLE = {"external_url": "https://registry.example.com"}


def scopes_in(door, text: str) -> str:
    return " ".join(map(str, door.gate._signer.verify(text, door.gate.service).scopes))


def test_the_published_request_gets_its_token(open_door, grants, key):
    door = open_door(**EXAMPLE)
    grants.add("alice", key.public, "push")

    answer = door.client.get(TARGET, headers={"Host": SERVICE, "Authorization": TOKEN_HEADER})

    assert answer.status_code == 200
    assert answer.json["token"] == answer.json["access_token"]
    assert (answer.json["expires_in"], answer.json["issued_at"]) == (900, "2023-11-14T22:13:20Z")
    assert scopes_in(door, answer.json["token"]) == SCOPE
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.content_type == "application/json"


def test_a_replay_is_refused_by_every_process(open_door, grants, key, database_url, signer, tokens, clock):
    door = open_door(**EXAMPLE)
    grants.add("alice", key.public, "push")
    headers = {"Host": SERVICE, "Authorization": TOKEN_HEADER}
    assert door.client.get(TARGET, headers=headers).status_code == 200

    replay = door.client.get(TARGET, headers=headers)
    other = Database(database_url)
    elsewhere = type(door.gate)(door.gate._config, other, signer, tokens, grants, lambda _: True, now=clock)
    door.app.extensions["tonnage.gate"] = elsewhere
    replay_elsewhere = door.client.get(TARGET, headers=headers)
    other.close()

    assert (replay.status_code, replay_elsewhere.status_code) == (401, 401)
    assert "used before" in replay.json["errors"][0]["message"]


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("repository:public/m:pull", 200),
        ("", 200),
        ("-", 200),
        ("repository:public/m:pull,push", 403),
        ("repository:alice/m:pull", 403),
        ("repository:public/m:pull repository:alice/m:pull", 403),
        ("repository:nowhere/m:pull", 403),
    ],
)
def test_a_key_that_nobody_let_in_gets_what_all_may_have(door, key, scope, status):
    answer = door.token(key, scope)

    assert answer.status_code == status
    if status == 200:
        assert door.gate._signer.verify(answer.json["token"], door.gate.service).subject == "anonymous"


@pytest.mark.parametrize(
    ("scope", "command"),
    [
        (SCOPE, f"tonnage key add alice {FINGERPRINT} --role push"),
        ("repository:bob/m:pull", f"tonnage key add bob {FINGERPRINT} --role pull"),
    ],
)
def test_a_refused_key_is_told_how_to_be_let_in(door, key, scope, command):
    answer = door.token(key, scope)

    text = answer.get_data(as_text=True)
    assert FINGERPRINT in text
    assert command in text
    assert answer.status_code == 403
    assert "unauthorized" not in text  # the ollama client would replace the whole sentence by its own
    assert "access denied" not in text


def test_a_known_key_gets_less_than_it_asked_for(door, grants, key):
    grants.add("alice", key.public, "pull")

    answer = door.token(key, "repository:alice/m:pull,push repository:bob/m:pull")

    assert scopes_in(door, answer.json["token"]) == "repository:alice/m:pull"


def test_what_was_signed_for_another_server_is_refused(door, grants, key):
    grants.add("alice", key.public, "push")

    answer = door.token(key, "repository:alice/m:push", host="stranger.example.com")

    assert answer.status_code == 401
    assert "TONNAGE_EXTERNAL_URL" in answer.json["errors"][0]["message"]


def test_a_signature_by_another_key_is_refused(door, grants, key):
    grants.add("alice", key.public, "push")
    header = f"{key.public.blob_base64}:{TOKEN_HEADER.partition(':')[2]}"

    answer = door.client.get(
        f"/v2/token?service=tonnage&ts=1700000000&nonce={NONCE}", headers={"Authorization": header}
    )

    assert answer.status_code == 401


def test_basic_credentials_need_a_token_not_a_user(door, tokens):
    secret = tokens.create("ci", scopes=["push"], namespaces=["alice"])

    answer = door.client.get(
        "/v2/token?service=tonnage&scope=repository:alice/m:pull,push&scope=repository:bob/m:pull&account=u&client_id=docker",
        headers={"Authorization": basic(secret, user="whoever")},
    )

    assert answer.status_code == 200
    assert scopes_in(door, answer.json["token"]) == "repository:alice/m:pull,push"


@pytest.mark.parametrize(
    "authorization",
    [
        basic("tng_aaaaaaaaaaaa_" + "A" * 43),
        basic("password"),
        basic(""),
        "Basic ???",
        "Basic",
        "Bearer x",
        "Bearer",
        "Digest a=b",
        "x",
        "x:y",
        ":",
        "A" * 9000,
    ],
)
def test_wrong_credentials_are_no_anonymous_ones(door, authorization):
    answer = door.client.get("/v2/token?scope=repository:public/m:pull", headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.json["errors"][0]["code"] == "UNAUTHORIZED"


def test_an_access_token_works_as_bearer(door, tokens):
    secret = tokens.create("ci", scopes=["pull"])

    answer = door.client.get("/v2/token?scope=repository:bob/m:pull", headers={"Authorization": f"Bearer {secret}"})

    assert scopes_in(door, answer.json["token"]) == "repository:bob/m:pull"


@pytest.mark.parametrize(
    ("query", "granted"),
    [
        ("", ""),
        ("scope=repository:public/m:pull,push", "repository:public/m:pull"),
        ("scope=repository:alice/m:pull", ""),
        ("scope=registry:catalog:*", ""),
        (
            "scope=repository:public/a:pull+repository:public/b:pull",
            "repository:public/a:pull repository:public/b:pull",
        ),
    ],
)
def test_nobody_in_particular_gets_what_all_may_have(door, query, granted):
    answer = door.client.get(f"/v2/token?{query}")

    assert answer.status_code == 200
    assert scopes_in(door, answer.json["token"]) == granted


def test_an_open_server_grants_what_is_asked(open_door):
    door = open_door(mode="open")

    answer = door.token(PrivateKey.generate(), "repository:alice/m:pull,push")

    assert scopes_in(door, answer.json["token"]) == "repository:alice/m:pull,push"


@pytest.mark.parametrize("query", ["service=other", "scope=" + "x" * 7000, "&".join(["scope=x"] * 40)])
def test_a_senseless_request_is_refused(door, query):
    answer = door.client.get(f"/v2/token?{query}")

    assert answer.status_code == 400
    assert answer.json["errors"]


def form(secret: str, **fields: str) -> dict[str, str]:
    return {
        "grant_type": "password",
        "username": "u",
        "password": secret,
        "service": "tonnage",
        "client_id": "c",
        **fields,
    }


def test_the_oauth2_form_gets_a_token(door, tokens):
    secret = tokens.create("ci", scopes=["push"])

    answer = door.client.post("/v2/token", data=form(secret, scope="repository:a/b:pull,push repository:a/c:pull"))

    assert answer.status_code == 200
    assert set(answer.json) == {"access_token", "expires_in", "issued_at", "scope", "token_type"}
    assert (
        answer.json["scope"]
        == scopes_in(door, answer.json["access_token"])
        == "repository:a/b:pull,push repository:a/c:pull"
    )


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"password": "wrong"}, 401, "invalid_grant"),
        ({"password": ""}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "unsupported_grant_type"),
        ({"password": "x" * 5000}, 400, "invalid_request"),
        ({"service": "other"}, 400, "invalid_request"),
        ({"scope": "x" * 7000}, 400, "invalid_request"),
    ],
)
def test_oauth2_refusals_use_its_words(door, fields, status, error):
    answer = door.client.post("/v2/token", data=form("tng_aaaaaaaaaaaa_" + "A" * 43, **fields))

    assert (answer.status_code, answer.json["error"]) == (status, error)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_long_form_is_not_read(door, content_type):
    assert door.client.post("/v2/token", data=b"a=" + b"x" * 10**6, content_type=content_type).status_code == 413
