"""The routes of the OpenAI dialect in the whole app: who may see and ask what, and what a route is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from auth.tokens import AccessTokens
from registry.app import create_app
from registry.config import load_config
from storage.store import Store
from tests.backends import environ_of
from tests.openai_app import error, user
from tests.stored_models import open_store, push_model

FAR_AWAY = {"X-Forwarded-For": "203.0.113.9"}
NAMES = [f"{space}/{model}:latest" for space in ("public", "alice", "bob") for model in "ab"]
ASKED = {
    "/v1/chat/completions": {"messages": user()},
    "/v1/completions": {"prompt": "q"},
    "/v1/responses": {"input": "q"},
    "/v1/embeddings": {"input": "q"},
    "/v1/rerank": {"query": "q", "documents": ["d"]},
}


@pytest.fixture
def store(tmp_path: Path, tiny_gguf: Path) -> Store:
    """Two models each in a public namespace and in two private ones."""
    store = open_store(tmp_path)
    for name in NAMES:
        push_model(store, name, tiny_gguf)
    store.namespaces.set_private("public", False)
    return store


@pytest.fixture
def client(store: Store, tmp_path: Path) -> FlaskClient:
    return create_app(load_config(None, {"TONNAGE_DATA": str(tmp_path), **environ_of(tmp_path)})).test_client()


def send(client: FlaskClient, method: str, path: str, **options: Any) -> Any:
    return client.open(path, method=method, base_url="http://127.0.0.1:11434", **options)


def headers(store: Store, *scopes: str, namespaces: tuple[str, ...] = ()) -> dict[str, str]:
    secret = AccessTokens(store.database).create("-".join(scopes), scopes=scopes, namespaces=namespaces)
    return {"Authorization": f"Bearer {secret}", **FAR_AWAY}


@pytest.mark.parametrize(
    ("scopes", "namespaces", "shown"),
    [
        (("pull",), ("alice",), {"alice", "public"}),
        (("infer",), ("bob",), {"bob", "public"}),
        (("delete",), ("alice",), {"public"}),
        (("admin",), (), {"alice", "bob", "public"}),
    ],
)
def test_models_are_shown_to_those_who_may_use_them(
    client: FlaskClient, store: Store, scopes: tuple[str, ...], namespaces: tuple[str, ...], shown: set[str]
) -> None:
    caller = headers(store, *scopes, namespaces=namespaces)

    listed = send(client, "GET", "/v1/models", headers=caller).json["data"]
    found = {name: send(client, "GET", f"/v1/models/{name}", headers=caller).status_code for name in NAMES}

    visible = {name for name in NAMES if name.partition("/")[0] in shown}
    assert {model["id"] for model in listed} == visible
    assert found == {name: 200 if name in visible else 403 for name in NAMES}


def test_what_may_not_be_seen_is_refused_alike_whether_it_is_there_or_not(client: FlaskClient, store: Store) -> None:
    caller = headers(store, "infer", namespaces=("bob",))

    there, absent = (send(client, "GET", f"/v1/models/alice/{name}", headers=caller) for name in ("a", "x"))

    assert there.status_code == absent.status_code == 403
    assert there.json["error"]["message"].replace("alice/a", "X") == absent.json["error"]["message"].replace(
        "alice/x", "X"
    )


@pytest.mark.parametrize("path", ASKED)
def test_a_model_of_others_is_not_asked(client: FlaskClient, store: Store, path: str) -> None:
    caller = headers(store, "infer", namespaces=("bob",))

    refused = send(client, "POST", path, headers=caller, json={"model": "alice/a", **ASKED[path]})

    assert refused.status_code == 403
    assert (refused.json["error"].keys(), refused.json["error"]["type"]) == (
        {"message", "type", "param", "code"}, "api_error",
    )  # fmt: skip


@pytest.mark.parametrize(("method", "path"), [*(("POST", path) for path in ASKED), ("GET", "/v1/models")])
def test_a_stranger_is_refused_in_the_shape_of_the_dialect(client: FlaskClient, method: str, path: str) -> None:
    refused = send(client, method, path, headers=FAR_AWAY)

    assert refused.status_code == 401
    assert refused.content_type == "application/json"
    assert refused.json["error"]["type"] == "authentication_error"
    assert refused.json["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("HEAD", "/v1/models", "GET"),
        ("HEAD", "/v1/models/public/a", "GET"),
        ("DELETE", "/v1/models/public/a", "GET"),
        *(("GET", path, "POST") for path in ASKED),
        ("HEAD", "/v1/audio/transcriptions", "POST"),
    ],
)
def test_trap_67_68_a_wrong_method_is_told_which_one_there_is(
    client: FlaskClient, method: str, path: str, allow: str
) -> None:
    refused = send(client, method, path)

    assert (refused.status_code, refused.headers["Allow"]) == (405, allow)
    assert refused.text == ("" if method == "HEAD" else "405 method not allowed")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/models", 301), ("POST", "/v1/completions", 307)])
def test_trap_69_a_final_slash_is_redirected(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = send(client, method, f"{path}/")

    assert (answer.status_code, answer.headers["Location"]) == (status, path)


def test_a_bug_of_ours_has_the_shape_too(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.models.openai_models.listed", None)

    refused = send(client, "GET", "/v1/models")

    assert (refused.status_code, refused.json) == error(500, refused.json["error"]["message"])
    assert refused.json["error"]["message"].startswith("internal error; quote request id ")


def test_no_model_is_an_empty_list(tmp_path: Path) -> None:
    open_store(tmp_path)
    client = create_app(load_config(None, {"TONNAGE_DATA": str(tmp_path), **environ_of(tmp_path)})).test_client()

    assert send(client, "GET", "/v1/models").text == '{"object":"list","data":[]}\n'
