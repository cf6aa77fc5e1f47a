"""Every route has a right, and a stranger gets through none that the access rules do not name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from flask import Flask

from auth.policy import Right
from auth.rights import RIGHTS, right_of
from registry.app import HANDLERS, create_app
from registry.config import Config
from registry.paths import Kind
from tests.client import Answer
from tests.databases import url_of
from tests.registry.access.world import ABSENT, PRIVATE, Wire

REST = "/v2/<rest:rest>"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# What the rules name, and what the heartbeat of the ollama client reads before it knows of any credentials: constants
# that are the same on every server.
PUBLIC_ANSWERS: Mapping[tuple[str, str], bytes] = {
    ("GET", "/"): b"Ollama is running",
    ("GET", "/healthz"): b"ok",
}
TOKEN_ENDPOINT = "/v2/token"
PATHS = {
    Kind.BLOB: f"blobs/{ABSENT}",
    Kind.UPLOAD_START: "blobs/uploads/",
    Kind.UPLOAD: "blobs/uploads/00000000-0000-0000-0000-000000000000",
    Kind.MANIFEST: "manifests/v1",
    Kind.TAGS: "tags/list",
    Kind.REFERRERS: f"referrers/{ABSENT}",
    Kind.CHUNK_SUMS: f"chunksums/{ABSENT}",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return network_app(tmp_path_factory.mktemp("app"))


def network_app(data: Path) -> Flask:
    return create_app(Config(data=str(data), database_url=url_of(data), listen_host="0.0.0.0"))


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods or ()):
            yield method, rule.rule


def test_every_route_is_in_the_table(app):
    unknown = [each for each in routes(app) if each[1] != REST and right_of(*each) is None]
    unknown += [(method, kind) for method, kind in HANDLERS if right_of(method, kind) is None]

    assert not unknown


def test_no_route_answers_options_by_itself(app):
    assert [each for each in routes(app) if each[0] == "OPTIONS"] == []


def test_the_public_routes_are_those_that_the_rules_name(app):
    public = {each for each in routes(app) if right_of(*each) is Right.PUBLIC}
    heads = {("HEAD", path) for _, path in PUBLIC_ANSWERS}
    token = {(method, TOKEN_ENDPOINT) for method in ("GET", "HEAD", "POST")}

    assert public <= set(PUBLIC_ANSWERS) | heads | token


def test_a_stranger_passes_no_route(app, network):
    before, wrong = network.state(), []
    wire = Wire(network.host)
    for method, path, is_open in strangers_requests(app):
        answer = wire.send(method, path, {"Content-Type": "application/json"}, b"{}" if method != "GET" else b"")
        if not is_open and (found := fault(method, path, answer)):
            wrong.append(f"{method} {path}: {answer.status} {answer.body[:200]!r}: {found}")

    assert not wrong, "\n".join(wrong)
    assert network.state() == before


def strangers_requests(app: Flask) -> Iterator[tuple[str, str, bool]]:
    """Each route of the server with each of its methods; whether it is open to all."""
    for method, rule in routes(app):
        if rule != REST:
            is_open = rule == TOKEN_ENDPOINT or (("GET", rule) in PUBLIC_ANSWERS and method in ("GET", "HEAD"))
            yield method, re.sub(r"<[^>]*>", "x", rule), is_open
    for method, kind in HANDLERS:
        yield method, f"/v2/{PRIVATE}/{PATHS[kind]}", False


def fault(method: str, path: str, answer: Answer) -> str:
    """What is wrong with a refusal, by the dialect that was spoken; empty when it is right."""
    is_registry = path == "/v2" or path.startswith("/v2/")
    statuses = {401} if is_registry else {403} if path.startswith("/api/") else {401, 403}
    if answer.status not in statuses:
        return f"status not in {statuses}"
    if is_registry and not answer.headers.get("WWW-Authenticate", "").startswith('Bearer realm="'):
        return "no challenge"
    if method == "HEAD":
        return "HEAD with a body" if answer.body else ""
    if answer.headers["Content-Type"].partition(";")[0] != "application/json":
        return "not JSON"
    return shape_fault(path, answer.status, answer.json)


def shape_fault(path: str, status: int, body: Mapping[str, object]) -> str:
    if path.startswith("/api/"):
        return "" if set(body) == {"error"} and isinstance(body["error"], str) else "not Ollama's shape"
    if path.startswith("/v1/messages"):
        return anthropic_fault(status, body)
    if path.startswith("/v1/"):
        error = body.get("error")
        is_right = isinstance(error, dict) and {"message", "type", "param", "code"} <= set(error)
        return "" if is_right and set(body) == {"error"} else "not OpenAI's shape"
    if path == "/v2" or path.startswith("/v2/"):
        errors = body.get("errors")
        is_right = isinstance(errors, list) and {"code", "message", "detail"} == set(errors[0])
        code = "UNAUTHORIZED" if status == 401 else "DENIED"
        return "" if is_right and isinstance(errors, list) and errors[0]["code"] == code else "not the spec's shape"
    return ""


def anthropic_fault(status: int, body: Mapping[str, object]) -> str:
    error = body.get("error")
    kind = "authentication_error" if status == 401 else "permission_error"
    if body.get("type") != "error" or not isinstance(error, dict) or error.get("type") != kind:
        return "not Anthropic's shape"
    return "" if re.fullmatch("req_[0-9a-f]{24}", str(body.get("request_id"))) else "no request id"


@pytest.mark.parametrize(("method", "path"), list(PUBLIC_ANSWERS))
def test_what_is_open_to_all_tells_nothing(network, method, path):
    wire = Wire(network.host)

    assert wire.send(method, path, {}).body == PUBLIC_ANSWERS[method, path]
    secret = network.secrets["admin"]
    assert wire.send(method, path, {"Authorization": f"Bearer {secret}"}).body == PUBLIC_ANSWERS[method, path]


def test_what_is_no_route_is_the_same_whatever_it_names(network):
    """Methods that no noun has, and paths that are none: refused before anybody looks for a repository."""
    wire, seen = Wire(network.host), set()
    for name in (PRIVATE, "ghost/model"):
        answers = []
        for method in (*METHODS, "OPTIONS", "TRACE", "PROPFIND"):
            for path in (*PATHS.values(), "unknown", "manifests/", "tags", "_catalog"):
                if (method, kind_of(path)) not in HANDLERS:
                    answer = wire.send(method, f"/v2/{name}/{path}", {})
                    assert answer.status in (401, 404, 405), (method, path)
                    answers.append((method, path, answer.status, answer.body.replace(name.encode(), b"NAME")))
        seen.add(tuple(answers))

    assert len(seen) == 1


def kind_of(path: str) -> Kind | None:
    return next((kind for kind, each in PATHS.items() if each == path), None)


@pytest.fixture(scope="module")
def whole_table(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The app with every route of the table, those that nobody has written yet too."""
    app = network_app(tmp_path_factory.mktemp("table"))
    known = {re.sub(r"<[^>]*>", "*", rule.rule) for rule in app.url_map.iter_rules()}
    for route in sorted({route for _, route in RIGHTS if route.startswith("/")} - known):
        methods = [method for method, each in RIGHTS if each == route]
        rule = route.replace("*", "<path:rest>")
        app.add_url_rule(rule, endpoint=route, view_func=lambda **_: "let in", methods=methods)
    return app


@pytest.mark.parametrize(
    ("method", "route"),
    [each for each in sorted(RIGHTS) if each[1].startswith("/") and RIGHTS[each] is not Right.PUBLIC],
)
def test_a_route_of_the_table_refuses_strangers_in_its_own_words(whole_table, method, route):
    path = route.replace("*", "x")
    client = whole_table.test_client()

    answer = client.open(path, method=method, json={}, environ_overrides={"REMOTE_ADDR": "203.0.113.9"})

    assert fault(method, path, Answer(answer.status_code, answer.headers, answer.data)) == "", answer.data


def test_a_route_that_nobody_put_into_the_table_is_refused(tmp_path):
    app = network_app(tmp_path)
    app.add_url_rule("/api/secret-new-thing", view_func=lambda: "let in")

    answer = app.test_client().get("/api/secret-new-thing", environ_overrides={"REMOTE_ADDR": "127.0.0.1"})

    assert (answer.status_code, json.loads(answer.data)) == (403, {"error": "no such route"})
