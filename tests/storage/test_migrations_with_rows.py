"""Every step of the schema, up and down, on tables that hold rows: what a step does not take away is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.types import JSON

from migrations.run import current, downgrade, head, upgrade
from storage.db import Database

_ROWS = (1, 2)
_ALLOWED = {"objects.state": "live", "key_grants.role": "pull"}  # where not any text is
_VERSION = "alembic_version"

Rows = dict[str, list[dict[str, object]]]


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    database = Database(url)
    try:
        with database.begin() as connection:
            yield connection
    finally:
        database.close()


def tables_of(connection: Connection) -> list[Table]:
    """As the database describes them, each behind those that it refers to."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != _VERSION]


def value(column: Column[object], number: int) -> object:
    """One of its type, another one for each number; of a reference, what it refers to. The last row has no more than
    it must have.
    """
    if column.foreign_keys:
        return value(next(iter(column.foreign_keys)).column, number)
    if column.nullable and number == _ROWS[-1]:
        return None
    if str(column) in _ALLOWED:
        return _ALLOWED[str(column)]
    kind, text = column.type, f"{column} {number}"
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, JSON):
        return {"text": text}
    if isinstance(kind, Integer):
        return number
    if isinstance(kind, Float | Numeric):
        return number + 0.125
    return text.encode() if isinstance(kind, LargeBinary) else text[-(getattr(kind, "length", None) or 100) :]


def rows_of(connection: Connection, tables: list[Table]) -> Rows:
    return {
        table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
        for table in tables
    }


def look(url: str, *, fill: bool = False) -> tuple[Rows, Rows]:
    """What is there, and what is there after tables without rows were given some, if that is asked for."""
    with opened(url) as connection:
        tables = tables_of(connection)
        found = rows_of(connection, tables)
        for table in tables if fill else ():
            if not found[table.name]:
                rows = [{column.name: value(column, number) for column in table.columns} for number in _ROWS]
                connection.execute(insert(table), rows)
        return found, rows_of(connection, tables)


def what_both_have(before: Rows, after: Rows) -> tuple[Rows, Rows]:
    """The rows of tables that are in both, with the columns that are in both."""
    common = {name: before[name][0].keys() & after[name][0].keys() for name in before.keys() & after.keys()}
    first, second = (
        {name: [{column: row[column] for column in columns} for row in rows[name]] for name, columns in common.items()}
        for rows in (before, after)
    )
    return first, second


def revisions() -> list[str]:
    return [f"{number:04}" for number in range(1, int(head()) + 1)]


def test_rows_go_up_and_down_every_step(empty_url):
    before: Rows = {}
    for revision in revisions():
        upgrade(empty_url, revision)
        after, filled = look(empty_url, fill=True)
        kept, found = what_both_have(before, after)
        assert kept == found
        assert found.keys() == before.keys(), "a step up took a table away"
        before = filled
    assert all(len(rows) == len(_ROWS) for rows in before.values())
    assert len(before) > 20

    for revision in reversed(revisions()[:-1]):
        downgrade(empty_url, revision)
        after, _ = look(empty_url)
        kept, found = what_both_have(before, after)
        assert kept == found
        assert found.keys() == after.keys(), "a step down made a table"
        before = after

    downgrade(empty_url, "base")
    with opened(empty_url) as connection:
        assert set(inspect(connection).get_table_names()) <= {_VERSION}
    upgrade(empty_url)
    assert current(empty_url) == head()
