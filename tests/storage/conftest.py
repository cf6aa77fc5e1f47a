"""A migrated database on every backend that is there, every driver, and the store on top of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.db import Database
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.protocol import Driver
from storage.drivers.s3 import S3Bucket
from storage.reference import RepositoryName
from storage.store import Store
from tests.databases import NO_SERVER, migrated_postgresql_database, postgresql_database, sqlite_template
from tests.s3_server import BUCKET, S3Server, s3_server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NO_SERVER)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    with postgresql_database() as url:
        yield url


@pytest.fixture
def database_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """A migrated database without rows."""
    if backend == "sqlite":
        (tmp_path / "migrated.db").write_bytes(sqlite_template())
        yield f"sqlite:///{tmp_path}/migrated.db"
        return
    with migrated_postgresql_database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return FilesystemDriver(tmp_path / "data")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3: S3Server) -> S3Bucket:
    """An empty part of the bucket."""
    return S3Bucket(BucketSettings(BUCKET, f"{secrets.token_hex(6)}/", s3.endpoint))


@pytest.fixture(params=["memory", "filesystem", "s3"])
def any_driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    if request.param == "s3":
        return ObjectDriver(request.getfixturevalue("s3_bucket"))
    return MemoryDriver() if request.param == "memory" else FilesystemDriver(tmp_path / "data")


@pytest.fixture
def store(database: Database, driver: Driver) -> Store:
    return Store(database, driver)


@pytest.fixture
def name() -> RepositoryName:
    return RepositoryName("team/model")
