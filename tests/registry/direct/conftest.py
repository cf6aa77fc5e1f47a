"""A keyed server over a real object store to which clients may go themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from auth.grants import KeyGrants
from auth.keys import PrivateKey
from storage.db import Database
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.s3 import S3Bucket
from storage.namespaces import Namespaces
from tests.client import Client
from tests.registry.ollama_world import World
from tests.s3_server import BUCKET, S3Server, s3_server
from tests.server import running_server

DATA = os.urandom(700_001)  # sent on from a quarter of a megabyte


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="package")
def world(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    told = {
        "TONNAGE_STORAGE": "s3",
        "TONNAGE_S3_BUCKET": BUCKET,
        "TONNAGE_S3_ENDPOINT": s3.endpoint,
        "TONNAGE_S3_PUBLIC_ENDPOINT": s3.endpoint,
        "TONNAGE_S3_REDIRECT_SIZE": "256K",
        "TONNAGE_S3_DIRECT_UPLOAD": "yes",
        "TONNAGE_LOG_LEVEL": "debug",  # what it says then is searched for secrets in the end
    }
    folder = tmp_path_factory.mktemp("direct")
    url = f"sqlite:///{folder}/rows.db"
    with running_server(folder / "data", {**s3.environ, **told, "TONNAGE_DATABASE_URL": url}) as server:
        yield with_keys(World(server, folder, PrivateKey.generate(), PrivateKey.generate()), Database(url))


def with_keys(world: World, database: Database) -> World:
    for namespace, is_private in (("acme", True), ("open", False)):
        Namespaces(database).create(namespace, is_private=is_private)
    grants = KeyGrants(database)
    grants.add("acme", world.owner.public, "push")
    grants.add("open", world.owner.public, "push")
    grants.add("acme", world.reader.public, "pull")
    database.close()
    return world


@pytest.fixture
def bucket(s3: S3Server) -> S3Bucket:
    return S3Bucket(BucketSettings(BUCKET, endpoint=s3.endpoint))


@pytest.fixture
def admin(world: World) -> Client:
    return world.admin()


@pytest.fixture(scope="package")
def blob(world: World) -> str:
    """The digest of DATA, in a repository that anybody may read and in one that few may."""
    world.admin().push_blob("acme/data", DATA)
    return world.admin().push_blob("open/data", DATA)


@pytest.fixture
def by_name(world: World) -> Client:
    """The server under another host name than the store's, as somebody without credentials."""
    return Client(world.server.host.replace("127.0.0.1", "localhost"))
