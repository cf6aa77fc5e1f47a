"""The steps themselves, by Alembic, which takes long to load and is seldom needed. The door is `migrations.run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from storage.engines import create_sqlite_or_postgresql_engine
from storage.errors import StorageUnavailable

_ADVISORY_LOCK: Final = 0x746F6E6E616765  # "tonnage": one number that all our processes agree on
_TURN_S: Final = 600  # for another process that migrates
_TABLE_S: Final = 15  # for a table that somebody reads: whoever comes to read it next waits behind us


def upgrade(url: str, revision: str) -> None:
    with _migrating(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    with _migrating(url) as config:
        command.downgrade(config, revision)


def head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    """One transaction over all steps, behind a lock: the process that comes second finds nothing left to do."""
    engine = create_sqlite_or_postgresql_engine(url)
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = _config()
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TURN_S}s'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TABLE_S}s'")
            config.attributes["connection"] = connection
            yield config
            if is_sqlite:
                _check_references(connection)
    except OperationalError as error:
        raise StorageUnavailable(
            "the database does not answer, or somebody has its tables locked: a server that runs, or a backup"
        ) from error
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    # percent signs are the configuration parser's own
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _prepare_sqlite(connection: object, _entry: object) -> None:
    """Foreign keys off: a step that rebuilds a table drops the old one, which would cascade into its children."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[attr-defined]
    connection.execute("PRAGMA foreign_keys = OFF")  # type: ignore[attr-defined]


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StorageUnavailable("the migration would leave a row without its parent", table=broken[0])
