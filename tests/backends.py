"""What the servers and stores of the tests keep their rows and bytes in: files below the data folder, unless
TONNAGE_TEST_DATABASE=postgresql or TONNAGE_TEST_STORAGE=s3 says otherwise.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.db import Database
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.choose import open_driver
from storage.drivers.protocol import Driver
from storage.models import Upload
from storage.store import Store
from tests.databases import ON_POSTGRESQL, POSTGRES, drop_databases, migrated_postgresql_database, url_of
from tests.s3_server import BUCKET, S3Server, s3_server

ON_S3 = os.environ.get("TONNAGE_TEST_STORAGE", "filesystem") == "s3"
OF_FILES = pytest.mark.skipif(ON_S3, reason="of bytes that are kept in files")

_open = ExitStack()


def environ_of(data: Path) -> dict[str, str]:
    """What a server of that data folder, and a command beside it, must be told to use the same backends."""
    told = {"TONNAGE_DATABASE_URL": url_of(data)} if ON_POSTGRESQL else {}
    if ON_S3:
        server = _s3()
        told |= {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": server.endpoint}
        told |= {"TONNAGE_S3_PREFIX": _prefix(data), **server.environ}
    return told


def driver_of(data: Path) -> Driver:
    """Where the bytes of that data folder are."""
    return open_driver(data, BucketSettings(BUCKET, _prefix(data), _s3().endpoint) if ON_S3 else None)


def store_of(data: Path) -> Store:
    """The store of that data folder, on a database of its schema."""
    return Store(Database(url_of(data)), driver_of(data))


def open_sessions(data: Path) -> set[str]:
    """The upload sessions of that data folder's store that have not ended."""
    store = store_of(data)
    try:
        with store.database.connect() as connection:
            found = select(Upload.id).where(Upload.finished_digest.is_(None))
            return set(connection.execute(found).scalars())
    finally:
        store.database.close()


def close_backends() -> None:
    """Everything that the tests of this process had started or made."""
    _open.close()
    drop_databases()


@lru_cache(maxsize=1)
def _s3() -> S3Server:
    folder = _open.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    return _open.enter_context(s3_server(Path(folder)))


def _prefix(data: Path) -> str:
    return f"{sha256(os.fsencode(data.absolute())).hexdigest()[:16]}/"


@contextmanager
def backends(folder: Path, database: str, storage: str) -> Iterator[dict[str, str]]:
    """New ones of those kinds for a server with its data in `folder`, whatever the other tests have; as what it must
    be told. Skips the test where there is no server of a kind.
    """
    with ExitStack() as held:
        told = {"TONNAGE_DATABASE_URL": f"sqlite:///{folder}/tonnage.db", "TONNAGE_STORAGE": storage}
        if database == "postgresql":
            if not POSTGRES and "CI" not in os.environ:
                pytest.skip("no PostgreSQL: TONNAGE_TEST_POSTGRES names none")
            told["TONNAGE_DATABASE_URL"] = held.enter_context(migrated_postgresql_database())
        if storage == "s3":
            server = held.enter_context(s3_server(folder.parent / f"{folder.name}-s3"))
            told |= {"TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": server.endpoint, **server.environ}
        yield told
