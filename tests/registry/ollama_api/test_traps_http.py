"""Compatibility traps of the Ollama API, by their numbers: how requests and answers travel."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.registry.ollama_api.world import ONE_OBJECT, SEEN_THROUGH_A_PROXY, Api, user
from tests.server import running_server

SHORT = {"num_predict": 2, "temperature": 0}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_trap_1_the_content_type_of_a_request_does_not_count(api: Api, content_type: str) -> None:
    answer = api.client.request("POST", "/api/show", b'{"model":"tiny"}', {"Content-Type": content_type})

    assert (answer.status, answer.json["details"]["family"]) == (200, "llama")


def test_trap_4_delete_reads_its_body(api: Api) -> None:
    answer = api.client.request("DELETE", "/api/delete", b'{"model":"nope"}')

    assert (answer.status, answer.json) == (404, {"error": "model 'nope' not found"})


@pytest.mark.parametrize("path", ["/api/generate", "/api/embed"])
def test_trap_6_inference_knows_no_name(api: Api, path: str) -> None:
    answer = api.post(path, name="tiny", prompt="x", input="x")

    assert (answer.status, answer.json) == (404, {"error": "model '' not found"})


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_trap_7_null_is_absent(api: Api, path: str) -> None:
    nothing = dict.fromkeys(("options", "keep_alive", "format", "tools", "think", "system", "images", "suffix"))

    answer = api.whole(path, model="tiny", prompt="hello", messages=user(), **nothing)

    assert (answer["done_reason"], answer["eval_count"]) == ("length", 8)


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_trap_8_an_empty_format_is_absent(api: Api, path: str) -> None:
    answer = api.whole(path, model="tiny", prompt="hello", messages=user(), format="")

    assert answer["eval_count"] == 8


@pytest.mark.parametrize(
    ("wanted", "quoted"), [("xml", r"\"xml\""), (["json"], r"[\"json\"]"), (7, "7"), (True, "true")]
)
def test_trap_9_a_format_that_is_none_is_quoted(api: Api, wanted: object, quoted: str) -> None:
    answer = api.post("/api/chat", model="tiny", messages=user(), format=wanted)

    told = f'invalid format: "{quoted}"; expected "json" or a valid JSON Schema object'
    assert (answer.status, answer.json) == (500, {"error": told})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/generate", {"model": "nope"}),
        ("POST", "/api/chat", {"model": "tiny", "messages": [], "keep_alive": "x"}),
        ("POST", "/api/chat", {"model": "bert", "messages": user()}),
        ("POST", "/api/embed", {"model": "nan", "input": "x"}),
        ("POST", "/api/show", {}),
        ("DELETE", "/api/delete", {}),
        ("POST", "/api/copy", {}),
        ("POST", "/api/pull", {}),
    ],
)
def test_trap_34_an_error_has_no_key_but_error(api: Api, method: str, path: str, body: dict[str, Any]) -> None:
    refused = api.client.request(method, path, json.dumps(body).encode())

    assert refused.status >= 400
    assert set(refused.json) == {"error"}


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/api/show", "/api/copy", "/api/pull"])
def test_trap_35_who_may_not_is_forbidden_not_asked_to_sign_in(api: Api, path: str) -> None:
    refused = api.post(path, SEEN_THROUGH_A_PROXY, model="tiny", source="tiny", destination="x")

    assert refused.status == 403
    assert set(refused.json) == {"error"}
    assert "WWW-Authenticate" not in refused.headers


def test_trap_50_no_models_are_an_empty_list(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as empty:
        client = Client(empty.host)
        assert client.request("GET", "/api/ps").json == {"models": []}
        assert client.request("GET", "/api/tags").json == {"models": []}
        assert client.request("GET", "/v1/models").json == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ["/api/ps", "/v1/models", "/v1/models/tiny", "/api/status"])
def test_trap_67_head_is_routed_where_the_api_has_it_alone(api: Api, path: str) -> None:
    assert api.client.request("GET", path).status == 200
    assert api.client.request("HEAD", path).status == 405
    for known in ("/", "/api/version", "/api/tags"):
        assert api.client.request("HEAD", known).status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/api/tags", "/v1/chat/completions", "/no/such/path"])
def test_trap_67_a_preflight_is_answered_on_any_path(api: Api, path: str) -> None:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = api.client.request("OPTIONS", path, headers=asked)

    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert answer.headers["Access-Control-Max-Age"] == "43200"
    assert {"Authorization", "Content-Type", "X-Stainless-Retry-Count"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(",")
    )


def test_trap_68_what_is_not_routed_is_told_in_plain_text(api: Api) -> None:
    unknown = api.client.request("GET", "/api/nothing")
    wrong = api.client.request("GET", "/api/generate")

    assert (unknown.status, unknown.body) == (404, b"404 page not found")
    assert (wrong.status, wrong.body, wrong.headers["Allow"]) == (405, b"405 method not allowed", "POST")
    assert {each.headers["Content-Type"].partition(";")[0] for each in (unknown, wrong)} == {"text/plain"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/tags/", 301),
        ("GET", "/v1/models/", 301),
        ("POST", "/api/generate/", 307),
        ("DELETE", "/api/delete/", 307),
    ],
)
def test_trap_69_a_final_slash_leads_to_the_route_without(api: Api, method: str, path: str, status: int) -> None:
    answer = api.client.request(method, path + "?ts=1", b"{}" if method != "GET" else None)

    assert answer.status == status
    assert re.sub(r"^http://[^/]*", "", answer.headers["Location"]) == path.rstrip("/") + "?ts=1"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "chrome-extension://abcdef", "http://localhost.evil.example", "null", "moz-extension://x"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/tags"), ("POST", "/api/chat"), ("OPTIONS", "/api/chat")])
def test_trap_70_a_strange_origin_is_refused_without_a_word(api: Api, origin: str, method: str, path: str) -> None:
    answer = api.client.request(method, path, headers={"Origin": origin})

    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://0.0.0.0:1", "app://x", "vscode-webview://x"]
)
def test_trap_70_a_local_origin_is_let_in(api: Api, origin: str) -> None:
    answer = api.client.request("GET", "/api/tags", headers={"Origin": origin})

    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("key", ["Model", "MODEL", "mODEL"])
def test_trap_71_keys_are_read_in_any_case(api: Api, key: str) -> None:
    assert api.whole("/api/generate", **{key: "tiny", "PROMPT": "x", "Options": SHORT})["eval_count"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/tags?ts=1700000000", None),
        ("GET", "/api/version?beta=true", None),
        ("HEAD", "/?ts=1", None),
        ("POST", "/api/show?ts=1700000000", b'{"model":"tiny"}'),
        ("POST", "/api/generate?model=nope&stream=false", b'{"model":"tiny","keep_alive":0}'),
        ("POST", "/v1/completions?beta=true", b'{"model":"tiny","max_tokens":1,"prompt":"x"}'),
    ],
)
def test_trap_86_a_query_string_does_not_count(api: Api, method: str, path: str, body: bytes | None) -> None:
    assert api.client.request(method, path, body).status == 200


def test_trap_90_the_version_is_a_plain_semantic_one(api: Api) -> None:
    answer = api.client.request("GET", "/api/version")

    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", answer.json["version"])
    assert set(answer.json) == {"version"}
    assert answer.headers["Content-Type"] == ONE_OBJECT


def test_trap_29_every_time_has_an_offset(api: Api) -> None:
    answer = api.whole("/api/generate", model="tiny", prompt="x", options=SHORT)
    listed = api.client.request("GET", "/api/tags").json["models"]
    loaded = api.loaded()["tiny:latest"]
    shown = api.post("/api/show", model="tiny").json

    times = [answer["created_at"], shown["modified_at"], loaded["expires_at"], *(e["modified_at"] for e in listed)]
    assert all(datetime.fromisoformat(time).tzinfo is not None for time in times)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", answer["created_at"])
