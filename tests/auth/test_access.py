from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from auth.errors import AccessDenied, Unauthorized
from auth.keys import PrivateKey
from auth.policy import Right
from storage.reference import RepositoryName
from tests.auth.conftest import basic
from tests.auth.vectors import API_HEADER, CLIENT2_BEARER, FINGERPRINT, SCOPE

LOCAL = {"is_loopback_listener": True}


def api_signature(key: PrivateKey, target: str) -> str:
    return f"{key.public.blob_base64}:{base64.b64encode(key.sign(f'GET,{target}'.encode())).decode()}"


def test_a_challenge_has_the_form_that_clients_can_read(open_door):
    door = open_door(external_url="https://registry.example.com")

    answer = door.check(Right.PUSH, "alice/tiny:push", Host="registry.example.com")

    assert answer.status_code == 401
    assert answer.headers.getlist("WWW-Authenticate") == [
        f'Bearer realm="https://registry.example.com/v2/token",service="registry.example.com",scope="{SCOPE}"'
    ]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:11434", "h:443", "[::1]:80", "H.example.com"])
def test_the_realm_is_on_the_host_that_the_client_addressed(door, host):
    answer = door.check(Right.PULL, "alice/m:pull", Host=host)

    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer realm="http://{host}/v2/token",service="tonnage",scope="repository:alice/m:pull"'
    )


def test_a_hostile_host_stays_out_of_the_challenge(door):
    answer = door.check(Right.PING, Host='x",scope="y')

    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="http://localhost/v2/token",service="tonnage"'


@pytest.mark.parametrize(
    ("right", "wanted", "scope"),
    [
        (Right.PING, "", None),
        (Right.PULL, "alice/m:pull", "repository:alice/m:pull"),
        (Right.PUSH, "alice/m:push", "repository:alice/m:pull,push"),
        (Right.DELETE, "alice/m:delete", "repository:alice/m:delete"),
        (Right.CATALOG, "", "registry:catalog:*"),
    ],
)
def test_a_challenge_names_what_is_needed(door, right, wanted, scope):
    header = door.check(right, wanted).headers["WWW-Authenticate"]

    assert header == 'Bearer realm="http://localhost/v2/token",service="tonnage"' + (
        f',scope="{scope}"' if scope else ""
    )


def test_a_challenge_names_what_would_be_welcome(door):
    name, source = RepositoryName.parse("alice/m"), RepositoryName.parse("bob/n")
    with door.app.test_request_context("/v2/alice/m/blobs/uploads/"), pytest.raises(Exception) as caught:
        door.gate.check(Right.PUSH, (name, "push"), also=[(source, "pull")])

    assert caught.value.challenge.endswith('scope="repository:alice/m:pull,push repository:bob/n:pull"')


def bearer(door, key, scope: str, nonce: str = "A" * 22) -> str:
    answer = door.token(key, scope, nonce=nonce)
    assert answer.status_code == 200
    return f"Bearer {answer.json['token']}"


def test_a_key_pushes_with_the_token_it_was_given(door, grants, key):
    grants.add("alice", key.public, "push")

    answer = door.check(Right.PUSH, "alice/m:push", Authorization=bearer(door, key, "repository:alice/m:pull,push"))

    assert answer.json == {"principal": f"key:{FINGERPRINT}"}


def test_a_narrow_token_is_told_to_widen(door, grants, key):
    grants.add("alice", key.public, "push")

    answer = door.check(Right.PUSH, "alice/m:push", Authorization=bearer(door, key, "repository:alice/m:pull"))

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].endswith(
        ',scope="repository:alice/m:pull,push",error="insufficient_scope"'
    )


def test_one_who_is_not_entitled_is_told_what_is_missing(door, grants, key):
    grants.add("alice", key.public, "pull")

    answer = door.check(Right.PUSH, "alice/m:push", Authorization=bearer(door, key, "repository:alice/m:pull,push"))

    assert answer.status_code == 401
    assert f"key {FINGERPRINT} may not push in alice" in answer.json["error"]
    assert "tonnage key add alice PUBKEY_FILE --role push" in answer.json["error"]


def test_what_is_taken_back_is_gone_at_once(door, grants, tokens, key, clock):
    grants.add("alice", key.public, "push")
    by_key = bearer(door, key, "repository:alice/m:pull,push")
    secret = tokens.create("ci", scopes=["push"])
    issued = door.client.get("/v2/token?scope=repository:alice/m:pull", headers={"Authorization": basic(secret)})
    by_token = f"Bearer {issued.json['token']}"
    assert door.check(Right.PULL, "alice/m:pull", Authorization=by_key).status_code == 200
    assert door.check(Right.PULL, "alice/m:pull", Authorization=by_token).status_code == 200

    grants.remove(FINGERPRINT)
    tokens.revoke("ci")

    assert door.check(Right.PULL, "alice/m:pull", Authorization=by_key).status_code == 401
    assert door.check(Right.PULL, "alice/m:pull", Authorization=by_token).status_code == 401


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "basic"])
def test_an_access_token_works_without_the_token_endpoint(door, tokens, form):
    secret = tokens.create("ci", scopes=["push"])
    authorization = basic(secret) if form == "basic" else form.format(secret)

    assert door.check(Right.PUSH, "alice/m:push", Authorization=authorization).status_code == 200
    refused = door.check(Right.DELETE, "alice/m:delete", Authorization=authorization)
    assert refused.status_code == 401
    assert 'scope="repository:alice/m:delete"' in refused.headers["WWW-Authenticate"]


def test_a_client_that_never_tires_of_asking_is_told_403(door, tokens):
    secret = tokens.create("ci", scopes=["pull"])

    issued = door.client.get("/v2/token?scope=repository:alice/m:pull,push", headers={"Authorization": basic(secret)})
    headers = {"Authorization": f"Bearer {issued.json['token']}", "User_Agent": "ollama-transfer/1.0"}

    assert door.check(Right.PUSH, "alice/m:push", **headers).status_code == 403
    assert door.check(Right.PUSH, "alice/m:push", Authorization=headers["Authorization"]).status_code == 401


def test_an_access_token_may_come_as_api_key(door, tokens):
    secret = tokens.create("app", scopes=["infer"])

    assert door.check(Right.INFER, path="/v1/check", X_Api_Key=secret).status_code == 200
    assert door.check(Right.INFER, path="/v1/check", X_Api_Key="sk-other").status_code == 401


@pytest.mark.parametrize(
    "authorization", [CLIENT2_BEARER, "Bearer ollama", "Bearer sk-x", "x:y", "Basic ???", "Nonsense"]
)
def test_credentials_that_prove_nothing_do_not_close_what_is_open(door, authorization):
    assert door.check(Right.PULL, "public/m:pull", Authorization=authorization).json == {"principal": "anonymous"}
    assert door.check(Right.PUBLIC, Authorization=authorization).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "ending"),
    [
        ("Bearer nonsense", ',error="invalid_token"'),
        ("Bearer tng_aaaaaaaaaaaa_" + "A" * 43, ',error="invalid_token"'),
        (basic("wrong"), ',error="invalid_token"'),
        (CLIENT2_BEARER, ""),
    ],
)
def test_credentials_that_prove_nothing_open_nothing(door, authorization, ending):
    answer = door.check(Right.PULL, "alice/m:pull", Authorization=authorization)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].endswith(f'scope="repository:alice/m:pull"{ending}')


def test_the_client2_bearer_is_no_identity_even_of_a_known_key(door, grants, key):
    grants.add("alice", key.public, "admin")

    assert door.check(Right.PULL, "alice/m:pull", Authorization=CLIENT2_BEARER).status_code == 401


def test_an_expired_token_is_called_invalid(door, grants, key, clock):
    grants.add("alice", key.public, "push")
    authorization = bearer(door, key, "repository:alice/m:pull")
    clock.now += 961

    answer = door.check(Right.PULL, "alice/m:pull", Authorization=authorization)

    assert answer.headers["WWW-Authenticate"].endswith(',error="invalid_token"')
    assert answer.json["error"] == "the token expired"


def test_a_ping_accepts_any_token_and_asks_for_one(door, key):
    authorization = bearer(door, key, "repository:public/m:pull")

    assert door.check(Right.PING).status_code == 401
    assert door.check(Right.PING, Authorization=authorization).status_code == 200
    assert door.check(Right.LOGIN, Authorization=authorization).status_code == 401


def test_the_published_api_signature_is_an_identity(door, grants, key):
    grants.add("alice", key.public, "push")

    with door.app.test_request_context(
        "/api/me",
        method="POST",
        headers={"Authorization": API_HEADER},
        environ_overrides={"RAW_URI": "/api/me?ts=1700000000"},
    ):
        assert door.gate.identify().principal == f"key:{FINGERPRINT}"


@pytest.mark.parametrize(("path", "status"), [("/api/check", 200), ("/check", 401), ("/v1/check", 401)])
def test_api_signatures_count_below_api_only(door, grants, key, path, status):
    grants.add("alice", key.public, "push")
    target = f"{path}?right=manage&wanted=alice/m:push&ts=1700000000"

    answer = door.client.get(target, headers={"Authorization": api_signature(key, target)})

    assert answer.status_code == status


def test_a_strange_key_below_api_is_told_how_to_be_let_in(door, key):
    target = "/api/check?right=manage&wanted=&ts=1700000000"

    answer = door.client.get(target, headers={"Authorization": api_signature(key, target)})

    assert answer.status_code == 403
    assert FINGERPRINT in answer.json["error"]
    assert f"tonnage key add NAMESPACE {FINGERPRINT}" in answer.json["error"]


@pytest.mark.parametrize("right", [Right.INFER, Right.MANAGE, Right.READ_MODELS, Right.ADMIN])
def test_below_api_a_refusal_is_never_401(door, right):
    answer = door.check(right, path="/api/check")

    assert answer.status_code == 403
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("right", "wanted", "status"),
    [
        (Right.INFER, "", 200),
        (Right.INFER, "alice/m:infer", 200),
        (Right.MANAGE, "alice/m:push", 200),
        (Right.READ_MODELS, "", 200),
        (Right.PUSH, "alice/m:push", 403),
        (Right.PULL, "alice/m:pull", 403),
        (Right.ADMIN, "", 403),
    ],
)
def test_a_loopback_peer_uses_models_without_credentials(open_door, right, wanted, status):
    door = open_door(**LOCAL)

    assert door.check(right, wanted, path="/api/check").status_code == status
    assert door.check(right, wanted, path="/api/check", Authorization="Bearer ollama").status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X_Real_IP": "10.0.0.1"},
        {"X_Forwarded_Proto": "https"},
        {"Host": "rebound.example.com"},
    ],
)
def test_a_forwarded_request_is_not_from_here(open_door, headers):
    assert open_door(**LOCAL).check(Right.INFER, path="/api/check", **headers).status_code == 403


def test_on_a_network_listener_nobody_is_from_here(open_door):
    assert open_door(is_loopback_listener=False).check(Right.INFER, path="/api/check").status_code == 403


def test_an_open_server_lets_everybody_in(open_door):
    door = open_door(mode="open")

    for right in Right:
        assert door.check(right, "alice/m:push", Authorization="Bearer junk").json == {"principal": "anonymous"}


def test_a_route_that_nobody_put_into_the_table_is_denied(open_door):
    door = open_door(mode="open")

    with door.app.test_request_context("/api/new"), pytest.raises(AccessDenied):
        door.gate.authorize("GET", "/api/new")


def test_the_table_names_the_right_and_the_caller_its_repository(door, tokens):
    secret = tokens.create("ci", scopes=["push"], namespaces=["alice"])
    alice, bob = RepositoryName.parse("alice/m"), RepositoryName.parse("bob/m")

    with door.app.test_request_context("/v2/", headers={"Authorization": f"Bearer {secret}"}):
        assert door.gate.authorize("PUT", "manifest", alice).is_known
        assert door.gate.authorize("GET", "/v2/").is_known
        assert (door.gate.may(alice, "push"), door.gate.may(bob, "pull")) == (True, False)
        assert (door.gate.may_see(alice), door.gate.may_see(bob)) == (True, False)
        with pytest.raises(Unauthorized):
            door.gate.authorize("DELETE", "manifest", alice)
        with pytest.raises(Unauthorized):
            door.gate.authorize("GET", "blob", bob)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=200),
        st.binary(max_size=100).map(lambda raw: "Basic " + base64.b64encode(raw).decode()),
        st.from_regex(r"Bearer [A-Za-z0-9_-]{0,30}(\.[A-Za-z0-9_-]{0,30}){0,3}", fullmatch=True),
    )
)
def test_no_authorization_header_breaks_the_gate(door, text):
    authorization = text.strip()

    assert door.check(Right.PULL, "alice/m:pull", Authorization=authorization).status_code == 401
    assert door.check(Right.PULL, "public/m:pull", Authorization=authorization).status_code == 200
    assert door.client.get("/v2/token", headers={"Authorization": authorization}).status_code in (200, 401)


def test_the_gate_asks_the_database_little(door, tokens, database):
    secret = tokens.create("ci", scopes=["pull"])
    asked: list[object] = []  # each question takes a connection out of the pool
    event.listen(database.engine, "checkout", lambda connection, *_: asked.append(connection))

    door.check(Right.PULL, "alice/m:pull", Authorization=f"Bearer {secret}")
    by_token = len(asked)
    asked.clear()
    door.check(Right.PULL, "public/m:pull")
    by_nobody = len(asked)

    assert (by_token, by_nobody) == (1, 1)
