"""A migrated database on every backend that is there, every driver, and the store on top of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from migrations.run import upgrade
from storage.db import Database
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.protocol import Driver
from storage.drivers.s3 import S3Bucket
from storage.reference import RepositoryName
from storage.store import Store
from tests.s3_server import BUCKET, S3Server, s3_server

POSTGRES = os.environ.get("TONNAGE_TEST_POSTGRES")  # the URL of a server where we may create databases
NO_SERVER = pytest.mark.skipif(
    not POSTGRES and not os.environ.get("CI"), reason="no PostgreSQL: TONNAGE_TEST_POSTGRES names none"
)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A migrated, empty SQLite file: copying it is faster than migrating for each test."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    upgrade(f"sqlite:///{path}")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path.read_bytes()


@contextmanager
def postgresql_database(template: str = "template1") -> Iterator[str]:
    """A new database like `template`, dropped afterwards; its URL."""
    assert POSTGRES, "CI must name a PostgreSQL server in TONNAGE_TEST_POSTGRES"
    name = f"tonnage_{secrets.token_hex(6)}"
    server = create_engine(make_url(POSTGRES).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture(scope="session")
def postgresql_template() -> Iterator[str]:
    """The name of a migrated, empty database."""
    with postgresql_database() as url:
        upgrade(url)
        yield str(make_url(url).database)


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
def database_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database without rows."""
    if backend == "sqlite":
        (tmp_path / "migrated.db").write_bytes(request.getfixturevalue("sqlite_template"))
        yield f"sqlite:///{tmp_path}/migrated.db"
        return
    with postgresql_database(request.getfixturevalue("postgresql_template")) as url:
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
