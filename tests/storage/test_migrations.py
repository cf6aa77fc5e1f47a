"""The schema goes up and down, and is what the models say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, update
from sqlalchemy.exc import DBAPIError

import auth.models
import registry.mirror.models
import registry.remotes.models
import storage.models
from migrations import steps
from migrations.run import current, downgrade, head, upgrade
from storage.db import Base, Database
from storage.engines import create_sqlite_or_postgresql_engine
from storage.errors import StorageUnavailable
from storage.models import DAMAGED, Object
from storage.store import Store
from tests.databases import NO_SERVER, migrated_postgresql_database, sqlite_template

ROOT = Path(__file__).parents[2]
assert (
    auth.models and registry.mirror.models and registry.remotes.models and storage.models
)  # their tables are in Base.metadata now


def test_up_and_down_with_rows_and_up_again(empty_url, driver, name):
    upgrade(empty_url)
    assert current(empty_url) == head()
    database = Database(empty_url)
    Store(database, driver).blobs.put(name, b"x")
    database.close()

    downgrade(empty_url, "base")

    assert current(empty_url) is None
    engine = create_sqlite_or_postgresql_engine(empty_url)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
    upgrade(empty_url)
    assert current(empty_url) == head()


def test_stepping_back_before_leases_keeps_blobs_and_makes_damaged_ones_live(empty_url, driver, name):
    upgrade(empty_url)
    database = Database(empty_url)
    store = Store(database, driver)
    blob = store.blobs.put(name, b"x")
    with database.write() as session:
        session.execute(update(Object).values(state=DAMAGED))

    database.close()
    downgrade(empty_url, "0002")
    with database.connect() as connection, pytest.raises(DBAPIError):
        connection.execute(update(Object).values(state=DAMAGED))
    database.close()
    upgrade(empty_url)

    assert store.blobs.open(name, blob.digest).read() == b"x"
    database.close()


def test_migrated_tables_are_what_the_models_say(database_url):
    engine = create_sqlite_or_postgresql_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_upgrading_again_keeps_the_rows(database_url, driver, name):
    database = Database(database_url)
    blob = Store(database, driver).blobs.put(name, b"x")

    upgrade(database_url)

    assert Store(database, driver).blobs.stat(name, blob.digest) == blob
    database.close()


def test_processes_that_start_at_once_all_find_the_schema(empty_url):
    program = "import sys; from migrations.run import upgrade; upgrade(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen([sys.executable, "-c", program, empty_url], env=environment) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert current(empty_url) == head()


@NO_SERVER
def test_a_migration_waits_no_longer_than_a_moment_for_a_table_in_use(monkeypatch):
    monkeypatch.setattr(steps, "_TABLE_S", 1)
    with migrated_postgresql_database() as url:
        engine = create_sqlite_or_postgresql_engine(url)
        with engine.connect() as backup:
            backup.exec_driver_sql("LOCK TABLE objects IN ACCESS SHARE MODE")
            with pytest.raises(StorageUnavailable, match="a backup"):
                downgrade(url, "base")
        engine.dispose()

        assert current(url) == head()
        downgrade(url, "base")


def test_a_migration_that_breaks_a_reference_is_undone(tmp_path):
    path = tmp_path / "broken.db"
    path.write_bytes(sqlite_template())
    url = f"sqlite:///{path}"
    downgrade(url, "-1")
    before = current(url)
    engine = create_engine(url)
    with engine.begin() as connection:  # foreign keys are off on a bare connection
        connection.exec_driver_sql("INSERT INTO blobs (digest, object_id) VALUES ('x', 7)")
    engine.dispose()

    with pytest.raises(StorageUnavailable):
        upgrade(url)
    assert current(url) == before


def test_the_files_are_numbered_in_the_order_of_the_steps():
    assert head() == steps.head()


@pytest.mark.parametrize("url", ["", "mysql://x/y", "not a url"])
def test_a_url_we_do_not_know_is_refused(url):
    with pytest.raises(StorageUnavailable):
        upgrade(url)
    with pytest.raises(StorageUnavailable):
        Database(url)


def test_a_database_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(StorageUnavailable):
        upgrade(f"sqlite:///{tmp_path}/no/such/folder/t.db")
    with pytest.raises(StorageUnavailable), Database(f"sqlite:///{tmp_path}/no/t.db").read() as session:
        session.connection()
