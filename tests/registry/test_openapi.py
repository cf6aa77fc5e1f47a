"""/openapi.json describes every route of the server, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from auth.policy import Right
from auth.rights import RIGHTS
from registry.app import HANDLERS, create_app
from registry.config import Config
from registry.openapi.document import FACES, document
from registry.openapi.native_schemas import SCHEMAS
from registry.paths import Kind
from runtime.options import LoadOptions, SampleOptions
from tests.client import Client
from tests.databases import url_of

REST = "/v2/<rest:rest>"
PATHS = {
    Kind.BLOB: "blobs/*",
    Kind.UPLOAD_START: "blobs/uploads/",
    Kind.UPLOAD: "blobs/uploads/*",
    Kind.MANIFEST: "manifests/*",
    Kind.TAGS: "tags/list",
    Kind.REFERRERS: "referrers/*",
    Kind.CHUNK_SUMS: "chunksums/*",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    data = tmp_path_factory.mktemp("app")
    return create_app(Config(data=str(data), database_url=url_of(data)))


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Each method on each route of the server, with an asterisk for what varies."""
    for rule in app.url_map.iter_rules():
        if rule.rule != REST:
            yield from ((method, re.sub("<[^>]*>", "*", rule.rule)) for method in rule.methods or ())
    yield from ((method, f"/v2/*/{PATHS[kind]}") for method, kind in HANDLERS)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_every_route_is_described_and_nothing_else(app: Flask) -> None:
    described = {(method, re.sub("{[^}]*}", "*", path)) for method, path, _ in operations()}

    assert described == set(routes(app))


def test_the_document_is_openapi_3_1() -> None:
    assert document()["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(document()).iter_errors()] == []


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))


def test_every_schema_is_used() -> None:
    text = str(document())
    unused = [name for name in document()["components"]["schemas"] if f"#/components/schemas/{name}'" not in text]

    assert unused == []


def test_faces_do_not_describe_one_schema_in_two_ways() -> None:
    names = [name for face in FACES for name in face.schemas]

    assert len(names) == len(set(names))


def test_credentials_are_asked_for_where_the_table_of_rights_asks_for_them() -> None:
    for method, path, operation in operations():
        route = re.sub("{[^}]*}", "*", path)
        if route.startswith("/v2/*"):
            continue
        needs_nothing = operation["security"] in ([{}], [{}, {"basic": []}])
        assert needs_nothing == (RIGHTS[method, route] is Right.PUBLIC), (method, path)
        assert ({} in operation["security"]) == (RIGHTS[method, route] is not Right.ADMIN)


def test_head_has_no_body() -> None:
    for method, path, operation in operations():
        if method == "HEAD":
            assert not any("content" in response for response in operation["responses"].values()), path


@pytest.mark.parametrize("options", [LoadOptions, SampleOptions])
def test_every_option_of_the_runtime_is_described(options: type) -> None:
    assert set(options.__dataclass_fields__) <= set(SCHEMAS["Options"]["properties"])


def test_the_server_shows_it(admin: Client) -> None:
    shown = admin.request("GET", "/openapi.json")

    assert (shown.status, shown.headers["Content-Type"]) == (200, "application/json")
    assert shown.json == document()
