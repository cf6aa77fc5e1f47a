"""The database: transactions that either read or write, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Executable,
    Integer,
    MetaData,
    Select,
    String,
    Table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.compiler import SQLCompiler

from storage.engines import BEGIN, BUSY_S, create_pool
from storage.errors import StorageFull, StorageUnavailable, TransactionLost

CONNECTIONS: Final = 16  # of one process, where nothing says how many threads share them

BigId: Final = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only in INTEGER keys


def ordered_text(length: int) -> String:
    """Text whose order is a contract: by bytes, whatever the locale of the database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class Base(DeclarativeBase):
    """Every table of the product. Constraints are named by rule, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Upsert:
    """An INSERT with its ON CONFLICT, built once in the words of each database; `on` a connection, in the right ones.

    Executed with the values of its columns by their names. build: finishes the bare INSERT, whichever the dialect.
    """

    def __init__(self, table: type[Base], build: Callable[[sqlite.Insert | postgresql.Insert], Executable]) -> None:
        self._statements = {"sqlite": build(sqlite.insert(table)), "postgresql": build(postgresql.insert(table))}

    def on(self, connection: Connection) -> Executable:
        return self._statements[connection.dialect.name]


class HotQuery:
    """A SELECT that nearly every request makes: put into SQL once, then handed straight to the database's driver.

    Its parameters are named `bindparam`s, its columns of types that drivers return as they are: text, bytes, numbers
    (a boolean may come as 0 or 1). What SQLAlchemy does around each execution takes ten times as long as SQLite needs
    for the answer.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        self.statement = statement


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A hot query in the words of one driver. names: in their order, where the driver wants parameters so."""

    sql: str
    names: Sequence[str] | None
    constants: Mapping[str, Any]

    @classmethod
    def of(cls, query: HotQuery, engine: Engine) -> Self:
        compiled = query.statement.compile(dialect=engine.dialect)
        assert isinstance(compiled, SQLCompiler)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return cls(compiled.string, compiled.positiontup if compiled.positional else None, constants)

    def arguments(self, values: Mapping[str, str]) -> Sequence[Any] | Mapping[str, Any]:
        given = {**self.constants, **values}
        return given if self.names is None else [given[name] for name in self.names]


class Database:
    """One database; a pool in every process that uses it.

    `write()` holds SQLite's write lock from its first line, so what a transaction read stays true until it ends.
    On PostgreSQL it runs at READ COMMITTED, whatever the server's default is: each statement sees what is committed
    when it begins. That is enough because whoever decides by a row holds it first (SELECT … FOR UPDATE) and looks in a
    statement after that, holds several in the order of their ids, and leaves the rest to constraints and ON CONFLICT.
    There are no serialisation failures at this level; what deadlocks all the same is TransactionLost for one of the
    two, and `storage.retry.retried` runs that again. Waits for a lock, a statement or a connection of the pool end as
    StorageUnavailable.
    """

    def __init__(self, url: str, *, connections: int = CONNECTIONS) -> None:
        """connections: how many this process makes at most; threads beyond them wait their turn."""
        self.engine = create_pool(url, connections)
        is_sqlite = self.engine.dialect.name == "sqlite"
        one_view = {} if is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reads = self.engine.execution_options(**one_view)
        self._writes = self.engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        # SQLite's waiting writers sleep and try again; within a process they take turns instead.
        self._turn = threading.Lock() if is_sqlite else None
        self._single = self.engine.execution_options(**{BEGIN: None})
        self._compiled: dict[HotQuery, _Compiled] = {}

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A short transaction that changes nothing, and sees one state. Never hold it while a body streams."""
        with _refusals(), Session(self._reads, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A short transaction: returning commits, raising rolls back. Never hold it while a body streams.

        Do not begin one within another.
        """
        with self.begin() as connection, Session(connection, expire_on_commit=False) as session:
            yield session
            session.flush()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """`write` on a bare connection. A session adds more to each statement than SQLite needs to carry it out."""
        with self._own_turn(), _refusals(), self._writes.begin() as connection:
            yield connection

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_S):
            raise StorageUnavailable("the database is busy")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A bare reading connection, for hot queries that a session would make slower than they are.

        Each query sees the latest rows: use `read()` where two queries must agree.
        """
        with _refusals(), self._single.connect() as connection:
            yield connection

    def first(self, query: HotQuery, **values: str) -> tuple[Any, ...] | None:
        """The first row of a hot query, in a read of its own."""
        with self._answer(query, values) as cursor:
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row

    def all(self, query: HotQuery, **values: str) -> list[tuple[Any, ...]]:
        """Every row; the query has a limit."""
        with self._answer(query, values) as cursor:
            return list(cursor.fetchall())

    @contextmanager
    def _answer(self, query: HotQuery, values: Mapping[str, str]) -> Iterator[DBAPICursor]:
        compiled = self._compiled.get(query)
        if compiled is None:
            compiled = self._compiled[query] = _Compiled.of(query, self.engine)
        with _refusals(), _driver_errors(self.engine):
            connection = self.engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(compiled.sql, compiled.arguments(values))
                yield cursor
                cursor.close()
            except self.engine.dialect.loaded_dbapi.Error:
                connection.invalidate()
                raise
            finally:
                connection.close()

    def dispose(self) -> None:
        """After a fork: forget the parent's connections without closing them."""
        self.engine.dispose(close=False)

    def close(self) -> None:
        """Close every idle connection of this process."""
        self.engine.dispose()


def insert(session: Session | Connection, table: type[Base] | Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, in the session's dialect."""
    connection = session if isinstance(session, Connection) else session.get_bind()
    is_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)


@contextmanager
def _driver_errors(engine: Engine) -> Iterator[None]:
    """The driver's own errors, where SQLAlchemy does not stand between."""
    driver: Any = engine.dialect.loaded_dbapi
    try:
        yield
    except (driver.OperationalError, driver.InterfaceError) as error:
        raise _unavailable(error) from error


@contextmanager
def _refusals() -> Iterator[None]:
    """A database that does not answer, as our errors; a violated constraint passes: it is a fact or a bug."""
    try:
        yield
    except PoolTimeout as error:
        raise StorageUnavailable("all database connections are in use") from error
    except OperationalError as error:
        raise _unavailable(error.orig) from error
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
            raise StorageUnavailable("the database does not answer") from error
        raise


# by PostgreSQL's SQLSTATE: serialization_failure, deadlock_detected; lock_not_available, query_canceled,
# too_many_connections; disk_full
_LOST: Final = ("40001", "40P01")
_BUSY: Final = ("55P03", "57014", "53300")
_FULL: Final = ("53100",)
_READ_ONLY: Final = "25006"  # read_only_sql_transaction: a standby, or a server that gave its place to one


def _unavailable(error: BaseException | None) -> StorageUnavailable | StorageFull:
    """What an OperationalError of either driver means to us."""
    state = getattr(error, "sqlstate", None)
    if state in _LOST:
        return TransactionLost("the database gave up the transaction for another one")
    if state in _BUSY:
        return StorageUnavailable("the database is busy")
    if state in _FULL or "disk is full" in str(error):
        return StorageFull("no space left for the database")
    return StorageUnavailable("the database does not answer")
