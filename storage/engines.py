"""How a connection to each database is made: what its transactions mean, and the bound of all that it may wait for.

PostgreSQL runs our transactions at READ COMMITTED, and reads that must agree on one snapshot, whatever its own default
is. Every wait of a connection ends: for the server, for a lock, for a statement, for the other end of the network.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from storage.errors import StorageUnavailable

BUSY_S: Final = 15  # for a lock that others hold
BEGIN: Final = "tonnage_begin"
_POOL_S: Final = 10  # for one of the process's connections

# How long a statement may run, and how long the server waits for the next one within a transaction: a node that is
# gone without a word holds no row for longer.
_POSTGRESQL_SETTINGS: Final = {
    "lock_timeout": f"{BUSY_S}s",
    "statement_timeout": "120s",
    "idle_in_transaction_session_timeout": "60s",
}
_POSTGRESQL_CONNECT: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # ms, for what was sent and is not acknowledged
    "application_name": "tonnage",
}


def create_sqlite_or_postgresql_engine(url: str) -> Engine:
    """An engine for one of the two databases we know. Raises StorageUnavailable for another URL."""
    return _create(_parse(url))


def create_pool(url: str, connections: int) -> Engine:
    """An engine that makes up to so many connections and keeps them, for whichever thread asks.

    Raises StorageUnavailable as above.
    """
    parsed = _parse(url)
    is_postgresql = parsed.get_backend_name() == "postgresql"
    engine = _create(
        _bounded(parsed) if is_postgresql else parsed,
        pool_size=connections,
        max_overflow=0,  # what does not fit waits its turn: a connection costs the server more than a short wait
        pool_timeout=_POOL_S,
        pool_pre_ping=is_postgresql,
    )
    if not is_postgresql:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageUnavailable("not a database URL") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageUnavailable("neither an SQLite nor a PostgreSQL URL", backend=parsed.get_backend_name())
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _create(url: URL, **options: Any) -> Engine:
    if url.get_backend_name() == "sqlite":
        return create_engine(url, connect_args={"timeout": BUSY_S}, **options)
    unsaid = {name: value for name, value in _POSTGRESQL_CONNECT.items() if name not in url.query}
    try:
        return create_engine(url, connect_args=unsaid, isolation_level="READ COMMITTED", **options)
    except ModuleNotFoundError:
        raise StorageUnavailable("a PostgreSQL database needs psycopg: install tonnage[postgres]") from None


def _bounded(url: URL) -> URL:
    """What the URL itself says in its `options` comes last, so that it holds."""
    ours = [f"-c {name}={value}" for name, value in _POSTGRESQL_SETTINGS.items()]
    return url.update_query_dict({"options": " ".join([*ours, *url.normalized_query.get("options", ())])})


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own; `_begin_sqlite` does
    connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what was answered 201 survives a power cut
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """A write that began as a read cannot wait for the lock: SQLite would fail it at once."""
    statement = connection.get_execution_options().get(BEGIN, "BEGIN")
    if statement is not None:
        connection.exec_driver_sql(statement)
