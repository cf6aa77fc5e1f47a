"""The whole app on a store of its own, asked as a program on the same machine asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from auth.tokens import AccessTokens
from registry.app import create_app
from registry.config import Config
from storage.store import Store
from tests.databases import migrated
from tests.made_models import SUCCESS, create, upload
from tests.tiny_gguf import write_tiny_gguf

JSON = dict[str, Any]


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return open_app(tmp_path / "data")


def open_app(data: Path, **settings: Any) -> Flask:
    nobody = {"upstream": "http://127.0.0.1:1"}
    return create_app(Config(data=str(data), database_url=migrated(data), **(nobody | settings)))


@pytest.fixture
def store(app: Flask) -> Store:
    found = app.extensions["tonnage.store"]
    assert isinstance(found, Store)
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf").read_bytes()


@pytest.fixture
def tiny(client: FlaskClient, weights: bytes) -> str:
    """The name of a stored model."""
    assert create(client, model="tiny", files={"tiny.gguf": upload(client, weights)})[-1] == SUCCESS
    return "tiny"


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, weights: bytes) -> FlaskClient:
    """For requests that change nothing: a client of an app that has one model, `tiny`."""
    client = open_app(tmp_path_factory.mktemp("settled") / "data").test_client()
    assert create(client, model="tiny", files={"tiny.gguf": upload(client, weights)})[-1] == SUCCESS
    return client


@pytest.fixture
def people(store: Store) -> dict[str, dict[str, str]]:
    """Headers of two who may push, each in a private namespace of their own: `mine` and `theirs`."""
    tokens, headers = AccessTokens(store.database), {}
    for name in ("mine", "theirs"):
        store.namespaces.create(name, is_private=True)
        headers[name] = {"Authorization": f"Bearer {tokens.create(name, scopes=('push',), namespaces=(name,))}"}
    return headers
