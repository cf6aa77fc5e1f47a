"""What transactions promise on each database, how long they may wait, and what becomes of those that cannot go on."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import select, update
from sqlalchemy import text as sql

from storage.db import Database
from storage.drivers.memory import MemoryDriver
from storage.errors import StorageFull, StorageUnavailable, TransactionLost
from storage.manifest import OCI_MANIFEST
from storage.models import Namespace
from storage.reference import RepositoryName, Tag
from storage.retry import retried
from storage.store import Store
from tests.databases import NO_SERVER, with_settings
from tests.waiting import wait_for

NAME = RepositoryName("team/model")
on_postgresql = pytest.mark.parametrize("backend", [pytest.param("postgresql", marks=NO_SERVER)], indirect=True)


@contextmanager
def told(url: str, **settings: str) -> Iterator[Database]:
    """A database whose connections say so in their URL."""
    database = Database(with_settings(url, **settings))
    try:
        yield database
    finally:
        database.close()


def setting(database: Database, name: str) -> str:
    with database.begin() as connection:
        return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())


@on_postgresql
@pytest.mark.parametrize("default", ["serializable", "repeatable\\ read", "read\\ committed"])
def test_the_servers_default_isolation_is_not_ours(database_url, default):
    with told(database_url, default_transaction_isolation=default) as database:
        assert setting(database, "transaction_isolation") == "read committed"
        with database.read() as session:
            shown = [session.scalar(sql(f"SHOW {each}")) for each in ("transaction_isolation", "transaction_read_only")]
        assert shown == ["repeatable read", "on"]
        assert setting(database, "transaction_isolation") == "read committed"  # on the same connection, afterwards


def test_a_read_sees_one_state(database, database_url):
    names = select(Namespace.name)
    with closing(Database(database_url)) as other, database.read() as session:
        before = session.scalars(names).all()
        Store(other, MemoryDriver()).namespaces.create("later")

        assert session.scalars(names).all() == before == []
    with database.read() as session:
        assert session.scalars(names).all() == ["later"]


@on_postgresql
def test_every_wait_has_a_bound_that_the_url_may_change(database_url, database):
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    assert [setting(database, name) for name in names] == ["15s", "2min", "1min"]

    with told(database_url, statement_timeout="5min") as changed:
        assert [setting(changed, name) for name in names] == ["15s", "5min", "1min"]


@on_postgresql
@pytest.mark.parametrize(
    ("settings", "statement"),
    [
        ({"lock_timeout": "50ms"}, "SELECT * FROM namespaces"),
        ({"statement_timeout": "50ms"}, "SELECT pg_sleep(30)"),
    ],
)
def test_a_wait_that_is_too_long_ends_as_unavailable(database_url, settings, statement):
    with psycopg.connect(database_url) as other, told(database_url, **settings) as database:
        other.execute("LOCK TABLE namespaces IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(StorageUnavailable, match="busy"), database.begin() as connection:
            connection.exec_driver_sql(statement)


@on_postgresql
def test_a_transaction_that_stands_still_lets_its_rows_go(database_url):
    with (
        told(database_url, idle_in_transaction_session_timeout="50ms") as database,
        closing(Database(database_url)) as other,
    ):
        Store(other, MemoryDriver()).namespaces.create("held")
        with pytest.raises(StorageUnavailable), database.write() as session:
            session.execute(update(Namespace).values(created_at=1.0))
            wait_for(lambda: _may_change(other), 20, "the row to be let go")
            session.execute(update(Namespace).values(created_at=2.0))

        assert Store(other, MemoryDriver()).namespaces.get("held").created_at > 2.0


def _may_change(database: Database) -> bool:
    with database.write() as session:
        held = select(Namespace.id).with_for_update(skip_locked=True)
        return session.execute(held).first() is not None


@on_postgresql
@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("40001", TransactionLost, "gave up"),
        ("40P01", TransactionLost, "gave up"),
        ("55P03", StorageUnavailable, "busy"),
        ("57014", StorageUnavailable, "busy"),
        ("53100", StorageFull, "no space"),
        ("57P01", StorageUnavailable, "does not answer"),
        ("25006", StorageUnavailable, "does not answer"),
    ],
)
def test_what_the_server_says_is_told_in_our_words(database, state, error, words):
    fails = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"

    with pytest.raises(error, match=words) as told, database.begin() as connection:
        connection.exec_driver_sql(fails)

    assert type(told.value) is error


@on_postgresql
def test_of_two_transactions_that_wait_for_each_other_both_end(database_url):
    with told(database_url, deadlock_timeout="50ms") as database:
        namespaces = Store(database, MemoryDriver()).namespaces
        for name in ("a", "b"):
            namespaces.create(name)
        runs, met = Counter[str](), threading.Barrier(2)

        @retried
        def count_up(first: str, second: str) -> None:
            runs[first] += 1
            with database.write() as session:
                session.execute(_count_up(first))
                if runs[first] == 1:
                    met.wait(20)  # each holds what the other one is about to want
                session.execute(_count_up(second))

        with database.write() as session:
            session.execute(update(Namespace).values(created_at=0.0))
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(count_up, "a", "b"), pool.submit(count_up, "b", "a")]:
                done.result(30)

        assert sorted(runs.values()) == [1, 2]
        assert [each.created_at for each in namespaces.list()] == [2.0, 2.0]


def _count_up(name: str):
    return update(Namespace).where(Namespace.name == name).values(created_at=Namespace.created_at + 1)


@on_postgresql
def test_a_push_that_the_database_gives_up_runs_again(database_url, caplog):
    with told(database_url, deadlock_timeout="1s") as database, psycopg.connect(database_url) as other:
        store = Store(database, MemoryDriver())
        config = store.blobs.put(NAME, b"{}")
        first, second = (_manifest(config, text) for text in ("one", "two"))
        store.repositories.put_manifest(NAME, Tag("v1"), first)
        other.execute("SET deadlock_timeout = '60s'")  # not the one that finds out
        other.execute("SELECT * FROM tags FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            push = pool.submit(store.repositories.put_manifest, NAME, Tag("v1"), second)
            wait_for(lambda: _waits(other), 20, "the push to wait for the tag")
            other.execute("SELECT * FROM objects FOR UPDATE")  # which the push holds
            other.rollback()

            pushed = push.result(30)

        assert store.repositories.get_manifest(NAME, Tag("v1")).digest == pushed.digest
        assert "runs again: Repositories._store" in caplog.text


def _waits(other: psycopg.Connection) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    found = other.execute(query).fetchone()
    return found is not None and found[0] > 0


def _manifest(config, text: str) -> bytes:
    descriptor = f'{{"mediaType": "a/b", "digest": "{config.digest}", "size": {config.size}}}'
    return (
        f'{{"schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {descriptor}, "layers": [], '
        f'"annotations": {{"text": "{text}"}}}}'
    ).encode()


def test_what_postgresql_needs_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StorageUnavailable, match=r"install tonnage\[postgres\]"):
        Database("postgresql://nobody@127.0.0.1:1/none")


def _always(error: Exception) -> tuple[Callable[[], None], list[int]]:
    calls: list[int] = []

    @retried
    def run() -> None:
        calls.append(len(calls))
        raise error

    return run, calls


@pytest.mark.parametrize(("error", "times"), [(TransactionLost("again"), 4), (StorageUnavailable("gone"), 1)])
def test_only_a_lost_transaction_runs_again_and_not_for_ever(error, times):
    run, calls = _always(error)

    with pytest.raises(StorageUnavailable):
        run()

    assert len(calls) == times


@on_postgresql
def test_pushes_that_make_the_same_tags_in_another_order_do_not_meet(database_url, caplog):
    with told(database_url, deadlock_timeout="10ms") as database:
        store = Store(database, MemoryDriver())
        raws = [_manifest(store.blobs.put(NAME, text.encode()), text) for text in ("one", "two")]
        at_once = threading.Barrier(2)

        def push(raw: bytes, step: int) -> None:
            for turn in range(5):
                tags = [Tag(f"turn{turn}-{number}") for number in range(30)][::step]
                at_once.wait(20)
                store.repositories.put_manifest(NAME, tags[0], raw, tags=tags)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(push, raws[0], 1), pool.submit(push, raws[1], -1)]:
                done.result(60)

    assert "runs again" not in caplog.text


def test_more_threads_than_connections_take_turns(database_url):
    with closing(Database(database_url, connections=2)) as database:
        store = Store(database, MemoryDriver())
        store.namespaces.create("team")

        with ThreadPoolExecutor(64) as pool:
            found = list(pool.map(lambda _: store.namespaces.get("team").name, range(640)))

    assert found == ["team"] * 640
