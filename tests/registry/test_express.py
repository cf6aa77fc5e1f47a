"""The short way to a public manifest gives the answer of the common way, and goes no further than it may."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from storage.digest import Digest
from storage.reference import RepositoryName, Tag
from tests.databases import url_of

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b"{}"
RAW = json.dumps(
    {
        "schemaVersion": 2,
        "config": {"mediaType": "application/x", "digest": str(Digest.of(CONFIG)), "size": len(CONFIG)},
        "layers": [],
    }
).encode()
DIGEST, DIGEST_512 = Digest.of(RAW), Digest.of(RAW, "sha512")


@pytest.fixture(params=["keyed", "open"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    config = Config(data=str(tmp_path), database_url=url_of(tmp_path), access=request.param)
    upgrade(config.database_url)
    app = create_app(config)
    store = app.extensions["tonnage.store"]
    store.namespaces.create("acme", is_private=False)
    store.namespaces.create("mine", is_private=True)
    for name in (RepositoryName("acme/model"), RepositoryName("mine/model")):
        store.blobs.put(name, CONFIG)
        store.repositories.put_manifest(name, Tag("v1"), RAW, MEDIA_TYPE)
        store.repositories.put_manifest(name, DIGEST_512, RAW, MEDIA_TYPE)
    yield app
    store.database.close()


class Taken(Exception):
    """The common way was taken."""


def ask(app: Flask, path: str, *, short: bool, **extra: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body; short: fail when the short way does not answer; else go round it."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "11434",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:11434",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        **extra,
    }
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        said[:] = [status, {name.lower(): value for name, value in headers}]

    express = app.wsgi_app
    common = express._app  # type: ignore[attr-defined]
    if short:
        express._app = _refuse  # type: ignore[attr-defined]
    try:
        body = b"".join((express if short else common)(environ, start_response))
    finally:
        express._app = common  # type: ignore[attr-defined]
    said[1].pop("x-request-id")
    return said[0], said[1], body


def _refuse(_environ: dict[str, Any], _start_response: object) -> list[bytes]:
    raise Taken


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("reference", ["v1", str(DIGEST), str(DIGEST_512)])
def test_both_ways_give_one_answer(app, method, reference):
    path = f"/v2/acme/model/manifests/{reference}"

    short, common = (ask(app, path, short=short, REQUEST_METHOD=method) for short in (True, False))

    assert short == common
    assert short[0] == "200 OK"
    assert short[2] == (RAW if method == "GET" else b"")
    assert short[1]["content-length"] == str(len(RAW))


@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/v2/acme/model/manifests/absent", {}),
        ("/v2/acme/model/manifests/.bad", {}),
        ("/v2/acme/absent/manifests/v1", {}),
        ("/v2/ACME/model/manifests/v1", {}),
        ("/v2/acme/model/manifests/", {}),
        ("/v2/acme/model/tags/list", {}),
        ("/v2/_catalog", {}),
        ("/api/tags", {}),
        (f"/v2/acme/model/blobs/{Digest.of(CONFIG)}", {}),
        ("/v2/acme/model/manifests/v1", {"REQUEST_METHOD": "PUT"}),
        ("/v2/acme/model/manifests/v1", {"REQUEST_METHOD": "DELETE"}),
        ("/v2/acme/model/manifests/v1", {"QUERY_STRING": "x=1"}),
        ("/v2/acme/model/manifests/v1", {"HTTP_IF_NONE_MATCH": f'"{DIGEST}"'}),
        ("/v2/acme/model/manifests/v1", {"HTTP_ORIGIN": "https://evil.example"}),
        ("/v2/acme/model/manifests/v1", {"HTTP_HOST": "rebound.example.com"}),
        ("/v2/acme/model/manifests/v1", {"CONTENT_LENGTH": "5"}),
        ("/v2/acme/model/manifests/v1", {"HTTP_TRANSFER_ENCODING": "chunked"}),
    ],
)
def test_whatever_else_there_is_takes_the_common_way(app, path, extra):
    with pytest.raises(Taken):
        ask(app, path, short=True, **extra)


def test_a_private_manifest_takes_the_common_way_where_access_is_keyed(app):
    path = "/v2/mine/model/manifests/v1"

    if app.extensions["tonnage.config"].access == "open":
        assert ask(app, path, short=True)[0] == "200 OK"
    else:
        with pytest.raises(Taken):
            ask(app, path, short=True)
        assert ask(app, path, short=False)[0].startswith("401")


def test_what_is_taken_back_is_gone_at_once(app):
    path = "/v2/acme/model/manifests/v1"
    assert ask(app, path, short=True)[0] == "200 OK"

    app.extensions["tonnage.store"].repositories.delete_manifest(RepositoryName("acme/model"), DIGEST)

    with pytest.raises(Taken):
        ask(app, path, short=True)


def test_a_namespace_that_becomes_private_is_private_at_once(app):
    path = "/v2/acme/model/manifests/v1"
    assert ask(app, path, short=True)[0] == "200 OK"

    app.extensions["tonnage.store"].namespaces.set_private("acme", True)

    if app.extensions["tonnage.config"].access == "keyed":
        with pytest.raises(Taken):
            ask(app, path, short=True)
