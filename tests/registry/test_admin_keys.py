"""/admin/keys: the grants of keys over HTTP."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from auth.keys import PrivateKey, sign_token_request, token_request_url
from tests.client import Answer, Client
from tests.server import Server, running_server

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("admin") / "data", {"TONNAGE_WORKERS": "2"}) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: Server) -> Client:
    return Client(server.host, server.admin_token)


@pytest.fixture
def namespace(server: Server) -> str:
    name = f"n{secrets.token_hex(4)}"
    server.run("namespace", "create", name)
    return name


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.generate()


def awkward_key() -> PrivateKey:
    """Its fingerprint has what addresses like to change."""
    for _ in range(100_000):
        key = PrivateKey.generate()
        if "//" in key.public.fingerprint and "+" in key.public.fingerprint:
            return key
    raise AssertionError("no such key in a hundred thousand")


def post(client: Client, headers: dict[str, str] | None = None, **fields: object) -> Answer:
    return client.request("POST", "/admin/keys", json.dumps(fields).encode(), JSON if headers is None else headers)


def granted(client: Client, namespace: str) -> list[dict[str, Any]]:
    answer = client.request("GET", f"/admin/keys?namespace={namespace}")
    assert answer.status == 200, answer.body
    keys: list[dict[str, Any]] = answer.json["keys"]
    return keys


def scope_of_token(host: str, key: PrivateKey, repository: str) -> int:
    scope, nonce = f"repository:{repository}:pull,push", secrets.token_urlsafe(16)
    url = token_request_url(f"http://{host}/v2/token", "tonnage", scope, int(time.time()), nonce)
    return (
        Client(host)
        .request("GET", url.removeprefix(f"http://{host}"), headers={"Authorization": sign_token_request(key, url)})
        .status
    )


def test_a_key_is_let_in_with_its_next_request_and_out_again(admin, server, namespace, key):
    assert scope_of_token(server.host, key, f"{namespace}/m") == 403

    made = post(admin, namespace=namespace, key=f"{key.public.line} me@home", role="push", comment="the build farm")

    assert made.status == 201
    told = made.json
    assert told.pop("created_at") == pytest.approx(time.time(), abs=60)
    assert told == {
        "namespace": namespace,
        "fingerprint": key.public.fingerprint,
        "key": key.public.line,
        "role": "push",
        "comment": "the build farm",
    }
    for _ in range(6):  # whichever worker answers
        assert scope_of_token(server.host, key, f"{namespace}/m") == 200
    assert admin.request("DELETE", f"/admin/keys/{key.public.fingerprint}").json == {"removed": 1}
    for _ in range(6):
        assert scope_of_token(server.host, key, f"{namespace}/m") == 403


@pytest.mark.parametrize("escape", [str, lambda text: quote(text, safe=""), lambda text: quote(text, safe="/:")])
def test_a_fingerprint_in_a_path_may_be_escaped_or_not(admin, namespace, escape):
    print_ = awkward_key_fingerprint(admin, namespace)

    removed = admin.request("DELETE", f"/admin/keys/{escape(print_)}?namespace={namespace}")

    assert (removed.status, removed.json) == (200, {"removed": 1})
    assert granted(admin, namespace) == []


def awkward_key_fingerprint(admin: Client, namespace: str) -> str:
    key = awkward_key()
    assert post(admin, namespace=namespace, key=key.public.line, role="pull").status == 201
    return key.public.fingerprint


def test_a_grant_is_taken_in_one_namespace_and_stays_in_the_other(admin, namespace, key):
    other = f"{namespace}-b"
    for each in (namespace, other):
        assert post(admin, namespace=each, key=key.public.line, role="pull", create_namespace=True).status == 201

    path = f"/admin/keys/{key.public.fingerprint}?namespace={namespace}"

    assert admin.request("DELETE", path).status == 200
    assert admin.request("DELETE", path).status == 404
    assert [each["fingerprint"] for each in granted(admin, other)] == [key.public.fingerprint]


def test_another_role_is_a_conflict_unless_it_is_asked_for(admin, namespace, key):
    fields = {"namespace": namespace, "key": key.public.line}
    assert post(admin, **fields, role="pull").status == 201
    assert post(admin, **fields, role="pull").status == 201

    conflict = post(admin, **fields, role="admin")

    assert (conflict.status, "replace" in conflict.json["error"]) == (409, True)
    assert granted(admin, namespace)[0]["role"] == "pull"
    assert post(admin, **fields, role="admin", replace=True).json["role"] == "admin"


def test_a_namespace_that_is_missing_is_named_with_the_command_or_made(admin, server, key):
    name = f"n{secrets.token_hex(4)}"
    fields = {"namespace": name, "key": key.public.line, "role": "push"}

    missing = post(admin, **fields)

    assert (missing.status, f"tonnage namespace create {name}" in missing.json["error"]) == (404, True)
    assert post(admin, **{**fields, "role": "no"}, create_namespace=True).status == 400
    assert name not in server.run("namespace", "list").stdout
    assert post(admin, **fields, create_namespace=True).status == 201
    assert f"{name}\tprivate" in server.run("namespace", "list").stdout
    assert admin.request("GET", f"/admin/keys?namespace={name}x").status == 404


GOOD = {"namespace": "acme", "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b"\xff",
        b"[" * 60_000,
        json.dumps({**GOOD, "role": "owner"}).encode(),
        json.dumps({**GOOD, "role": 1}).encode(),
        json.dumps({**GOOD, "role": None}).encode(),
        json.dumps({**GOOD, "role": "push", "create_namespace": 1}).encode(),
        json.dumps({**GOOD, "role": "push", "surprise": True}).encode(),
        json.dumps({**GOOD, "role": "push", "comment": "x" * 256}).encode(),
        json.dumps({**GOOD, "role": "push", "comment": "a\nb"}).encode(),
        json.dumps({**GOOD, "role": "push", "namespace": "No Such"}).encode(),
        json.dumps({**GOOD, "role": "push", "namespace": "a\0b"}).encode(),
        json.dumps({**GOOD, "role": "push", "key": "ssh-rsa AAAA"}).encode(),
        json.dumps({"key": GOOD["key"], "role": "push"}).encode(),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_refused_in_words(admin, body):
    answer = admin.request("POST", "/admin/keys", body, JSON)

    assert answer.status == 400
    assert answer.json["error"]


def test_a_body_is_bounded_and_has_to_be_json(admin, namespace, key):
    fields = {"namespace": namespace, "key": key.public.line, "role": "push"}
    large = json.dumps(fields).encode() + b" " * 2**17

    assert admin.request("POST", "/admin/keys", large, JSON).status == 413
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert post(admin, {"Content-Type": kind}, **fields).status == 415
    assert granted(admin, namespace) == []


@pytest.mark.parametrize("path", ["/admin/keys/nonsense", "/admin/keys/SHA256:short", "/admin/keys/SHA256:a%00b"])
def test_what_is_no_fingerprint_is_refused(admin, path):
    assert admin.request("DELETE", path).status == 400


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("scopes", [None, ("pull", "push", "delete", "infer")])
def test_only_an_admin_token_may_not_even_this_machine_without_one(server, namespace, key, method, scopes):
    secret = ""
    if scopes is not None:
        flags = [word for scope in scopes for word in ("--scope", scope)]
        secret = server.run("token", "create", secrets.token_hex(4), *flags).stdout.splitlines()[-1]
    path = f"/admin/keys/{key.public.fingerprint}" if method == "DELETE" else "/admin/keys"
    body = json.dumps({"namespace": namespace, "key": key.public.line, "role": "push"}).encode()

    answer = Client(server.host, secret).request(method, path, body, JSON)

    assert answer.status in (401, 403)
    assert "error" in answer.json


def test_a_key_with_the_admin_role_is_no_administrator(admin, server, namespace, key):
    assert post(admin, namespace=namespace, key=key.public.line, role="admin").status == 201
    nonce = secrets.token_urlsafe(16)
    url = token_request_url(f"http://{server.host}/v2/token", "tonnage", "", int(time.time()), nonce)
    signed = {"Authorization": sign_token_request(key, url)}
    token = Client(server.host).request("GET", url.removeprefix(f"http://{server.host}"), headers=signed).json["token"]

    assert Client(server.host, token).request("GET", "/admin/keys").status in (401, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("access", ["keyed", "open"])
def test_a_page_of_another_origin_changes_nothing(tmp_path_factory, access, headers, pages):
    server, client = pages(access)
    key = PrivateKey.generate()

    answer = post(
        client, {**JSON, **headers}, namespace="acme", key=key.public.line, role="push", create_namespace=True
    )

    assert answer.status == 403
    assert key.public.fingerprint not in server.run("key", "list").stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Any]:
    """A server of each kind of access; the open one lets pages of every origin ask its models."""
    path: Path = tmp_path_factory.mktemp("open") / "data"
    with running_server(path, {"TONNAGE_ACCESS": "open", "OLLAMA_ORIGINS": "*"}) as opened:
        clients = {"keyed": (server, Client(server.host, server.admin_token)), "open": (opened, Client(opened.host))}
        yield clients.__getitem__


def test_open_access_is_open_here_too(pages, key):
    _, client = pages("open")

    assert post(client, namespace="lab", key=key.public.line, role="push", create_namespace=True).status == 201
    assert granted(client, "lab")[0]["fingerprint"] == key.public.fingerprint


def test_what_is_granted_here_is_a_row_each(admin, server, key):
    name = f"n{secrets.token_hex(4)}"
    post(admin, namespace=name, key=key.public.line, role="push", create_namespace=True)
    post(admin, namespace=name, key=key.public.line, role="pull", replace=True)
    admin.request("DELETE", f"/admin/keys/{key.public.fingerprint}?namespace={name}")

    rows = [json.loads(line) for line in server.run("audit", "--json", "--repository", name).stdout.splitlines()]

    assert [(each["what"], each["detail"], each["who"], each["from"]) for each in rows] == [
        ("namespace.create", "private", "token:admin", "127.0.0.1"),
        ("key.add", "push", "token:admin", "127.0.0.1"),
        ("key.change", "pull", "token:admin", "127.0.0.1"),
        ("key.remove", f"pull in {name}", "token:admin", "127.0.0.1"),
    ]


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/admin/keys"), ("PUT", "/admin/keys"), ("GET", "/admin")])
def test_there_is_no_other_way(admin, method, path):
    assert admin.request(method, path).status in (403, 404, 405)
