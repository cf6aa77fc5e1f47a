"""Where the rows of a test are: in SQLite's file below its data folder, or in a PostgreSQL database of its own.

TONNAGE_TEST_DATABASE=postgresql chooses the second for every server and store; TONNAGE_TEST_POSTGRES names the server.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from migrations.run import upgrade

POSTGRES = os.environ.get("TONNAGE_TEST_POSTGRES")  # the URL of a server where we may create databases
ON_POSTGRESQL = os.environ.get("TONNAGE_TEST_DATABASE", "sqlite") == "postgresql"
DATABASE = "postgresql" if ON_POSTGRESQL else "sqlite"
NO_SERVER = pytest.mark.skipif(
    not POSTGRES and not os.environ.get("CI"), reason="no PostgreSQL: TONNAGE_TEST_POSTGRES names none"
)

_of_folders: dict[Path, str] = {}  # the databases that are in use
_unused: list[str] = []  # migrated and without rows


def url_of(data: Path) -> str:
    """The database of a data folder: where there is none yet, SQLite makes it when it is opened; PostgreSQL has it now,
    with its schema.
    """
    if not ON_POSTGRESQL:
        return f"sqlite:///{data / 'tonnage.db'}"
    if data not in _of_folders:
        _of_folders[data] = _take()
    return _url(_of_folders[data])


def migrated(data: Path) -> str:
    """The same with its schema and no rows, on either; it takes a copy and no migration."""
    url = url_of(data)
    data.mkdir(parents=True, exist_ok=True)
    if not ON_POSTGRESQL:
        (data / "tonnage.db").write_bytes(sqlite_template())
    return url


@lru_cache(maxsize=1)
def sqlite_template() -> bytes:
    """A migrated, empty SQLite file: copying it is faster than migrating for each test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        upgrade(f"sqlite:///{path}")
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        return path.read_bytes()


@lru_cache(maxsize=1)
def postgresql_template() -> str:
    """The name of a migrated, empty database."""
    name = _new_name()
    _command(f"CREATE DATABASE {name} TEMPLATE template1")
    upgrade(_url(name))
    return name


@contextmanager
def postgresql_database(template: str = "template1", *, more: str = "") -> Iterator[str]:
    """A new database like `template`, dropped afterwards; its URL. more: of CREATE DATABASE."""
    name = _new_name()
    _command(f"CREATE DATABASE {name} TEMPLATE {template} {more}")
    try:
        yield _url(name)
    finally:
        _drop(name)


@contextmanager
def migrated_postgresql_database() -> Iterator[str]:
    """The same with the schema, and no rows. It is lent to one after the other: making one takes far longer."""
    name = _take()
    try:
        yield _url(name)
    finally:
        _give_back(name)


def lose(data: Path) -> None:
    """The database of that folder is gone from under whoever uses it."""
    if ON_POSTGRESQL:
        _drop(_of_folders.pop(data))
        return
    for suffix in ("", "-wal", "-shm"):
        path = data / f"tonnage.db{suffix}"
        if path.exists():
            path.chmod(0)
            path.rename(path.with_name(f"{path.name}.away"))
    (data / "tonnage.db").mkdir()


def with_settings(url: str, **settings: str) -> str:
    """The URL of a PostgreSQL database for connections with those settings."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return make_url(url).update_query_dict({"options": options}).render_as_string(hide_password=False)


def give_back_databases(below: Path) -> None:
    """Those of folders at or below that one: no test needs them any more."""
    for data in [data for data in _of_folders if data.is_relative_to(below)]:
        _give_back(_of_folders.pop(data))


def drop_databases() -> None:
    """All that this process has made."""
    if postgresql_template.cache_info().currsize:
        _unused.append(postgresql_template())
        for made in (postgresql_template, _tables_of_template, _cleaning):
            made.cache_clear()
    for name in [*_of_folders.values(), *_unused]:
        _drop(name)
    _of_folders.clear()
    _unused.clear()


def _take() -> str:
    if _unused:
        return _unused.pop()
    name = _new_name()
    _command(f"CREATE DATABASE {name} TEMPLATE {postgresql_template()}")
    return name


def _give_back(name: str) -> None:
    """Without rows and connections; one whose schema has been changed goes."""
    with psycopg.connect(_url(name), autocommit=True) as connection:
        connection.execute(_END_OTHERS)
        is_as_it_was = connection.execute(_TABLES).fetchall() == _tables_of_template()
        if is_as_it_was:
            connection.execute(_cleaning())
    if is_as_it_was:
        _unused.append(name)
    else:
        _drop(name)


_END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES = """
SELECT relname, relkind, relnatts FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = 'public' ORDER BY relname
"""


@lru_cache(maxsize=1)
def _tables_of_template() -> list[tuple[str, str, int]]:
    with psycopg.connect(_url(postgresql_template()), autocommit=True) as connection:
        return connection.execute(_TABLES).fetchall()


@lru_cache(maxsize=1)
def _cleaning() -> str:
    """One text of statements; references are not looked at, so that their order is no matter."""
    found = _tables_of_template()
    tables = [name for name, kind, _ in found if kind == "r" and name != "alembic_version"]
    statements = ["SET session_replication_role = replica", *(f'DELETE FROM "{name}"' for name in tables)]
    statements += [f"SELECT setval('{name}', 1, false)" for name, kind, _ in found if kind == "S"]
    return "; ".join(statements)


def _new_name() -> str:
    return f"tonnage_{secrets.token_hex(6)}"


def _url(name: str) -> str:
    return make_url(_server()).set(database=name).render_as_string(hide_password=False)


def _server() -> str:
    assert POSTGRES, "TONNAGE_TEST_POSTGRES must name a PostgreSQL server"
    return make_url(POSTGRES).set(drivername="postgresql").render_as_string(hide_password=False)


def _drop(name: str) -> None:
    _command(f"DROP DATABASE {name} WITH (FORCE)")


def _command(statement: str) -> None:
    with psycopg.connect(_server(), autocommit=True) as connection:
        connection.execute(statement)
