"""Run migrations from code: no configuration file, so it works wherever the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from storage.engines import create_sqlite_or_postgresql_engine
from storage.errors import StorageUnavailable

_VERSIONS: Final = Path(__file__).parent / "versions"
_TABLE: Final = "alembic_version"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema up to `revision`; harmless if it is there, and if another process does the same now."""
    found = current(url) if revision == "head" else None
    if found == head():
        return
    if found is not None and found > head():
        raise StorageUnavailable(
            "the database was made by a newer version of tonnage; install that one", revision=found
        )
    from migrations import steps  # noqa: PLC0415  # Alembic takes longer to load than most commands to run

    steps.upgrade(url, revision)


def downgrade(url: str, revision: str) -> None:
    """Bring the schema down to `revision`; `base` is an empty database."""
    from migrations import steps  # noqa: PLC0415

    steps.downgrade(url, revision)


def current(url: str) -> str | None:
    """The revision that the database is at; None before the first one."""
    engine = create_sqlite_or_postgresql_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(_TABLE):
                return None
            found: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar()  # noqa: S608
            return found
    except OperationalError as error:
        raise StorageUnavailable("the database does not answer") from error
    except DBAPIError as error:
        raise StorageUnavailable("this is no database of tonnage") from error
    finally:
        engine.dispose()


def head() -> str:
    """The revision that this code was written for: files are numbered in the order of the steps."""
    return max(path.name for path in _VERSIONS.glob("[0-9]*.py")).partition("_")[0]
