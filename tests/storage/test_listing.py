"""Lists cost one query that walks an index; pages put together are the whole, whatever changes in between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, text

from migrations.run import downgrade, upgrade
from storage import models as rows
from storage.db import Database
from storage.digest import Digest
from storage.errors import ManifestUnknown, NameUnknown
from storage.listing import Readable
from storage.reference import RepositoryName, Tag
from storage.store import Store

BIG = RepositoryName("public/m-00")
SUBJECT = Digest.of(b"subject")
HIDDEN, SHOWN = ("alice", "bob"), ("public", "shared")
MANY = 60
TYPES = ("application/vnd.a", "application/vnd.b", None)

Statement = tuple[str, Any]
use_one_store = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def statements(database: Database) -> Iterator[list[Statement]]:
    """What is sent to the database meanwhile, but for the beginnings and ends of transactions."""
    sent: list[Statement] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


def plan(database: Database, statement: Statement) -> str:
    """How the statement would be run; by PostgreSQL if its tables were too large to be read from end to end."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    with database.connect() as connection, connection.begin():
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        prefix = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        found = connection.exec_driver_sql(prefix + statement[0], statement[1]).all()
    return "\n".join(str(row[-1]) for row in found)


def manifest(row_id: int, repository_id: int, subject: Digest | None = None, size: int = 100) -> dict[str, Any]:
    return {
        "id": row_id,
        "repository_id": repository_id,
        "digest": str(Digest.of(f"{row_id}".encode())),
        "media_type": "application/vnd.oci.image.index.v1+json",
        "artifact_type": TYPES[row_id % 3] if subject is not None else None,
        "subject": str(subject) if subject is not None else None,
        "annotations": {"number": f"{row_id}"} if subject is not None else None,
        "size": size,
        "raw": b"{}",
        "pushed_at": 0.0,
    }


@pytest.fixture
def filled(store: Store) -> Store:
    """240 repositories of four namespaces; the first public one with 2000 tags and as many referrers of one manifest.

    Rows enough for a planner to prefer an index, written in bulk.
    """
    names = [f"{space}/m-{number:02}" for number in range(MANY) for space in (*HIDDEN, *SHOWN)]
    ids = {name: place for place, name in enumerate(names, start=1)}
    spaces = {space: place for place, space in enumerate((*HIDDEN, *SHOWN), start=1)}
    big = ids[str(BIG)]
    with store.database.write() as session:
        for table, values in (
            (
                rows.Namespace,
                [
                    {"id": place, "name": space, "is_private": space in HIDDEN, "created_at": 0.0}
                    for space, place in spaces.items()
                ],
            ),
            (
                rows.Repository,
                [
                    {"id": place, "name": name, "namespace_id": spaces[name.partition("/")[0]], "created_at": 0.0}
                    for name, place in ids.items()
                ],
            ),
            (rows.Manifest, [manifest(place, place) for place in ids.values()]),
            (rows.Manifest, [manifest(1000 + number, big, SUBJECT) for number in range(2000)]),
            (
                rows.Tag,
                [
                    {"repository_id": place, "name": "latest", "manifest_id": place, "updated_at": float(place)}
                    for place in ids.values()
                ]
                + [
                    {"repository_id": big, "name": f"v{number:04}", "manifest_id": big, "updated_at": 0.0}
                    for number in range(2000)
                ],
            ),
        ):
            session.execute(insert(table), values)
        if store.database.engine.dialect.name == "postgresql":
            session.execute(text("ANALYZE"))  # it does so by itself in time; SQLite never
    return store


SOME = Readable(frozenset({"alice", "unknown"}), frozenset({"bob/m-07"}))
LISTS: dict[str, Callable[[Store], object]] = {
    "tags": lambda store: store.repositories.tags(BIG),
    "tags after one": lambda store: store.repositories.tags(BIG, n=10, last="v1000"),
    "tags of none": lambda store: store.repositories.tags(RepositoryName("alice/m-01"), n=0),
    "catalog": lambda store: store.repositories.catalog(n=20),
    "catalog of a reader": lambda store: store.repositories.catalog(n=20, last="bob", readable=SOME),
    "catalog of a stranger": lambda store: store.repositories.catalog(n=20, readable=Readable()),
    "referrers": lambda store: store.repositories.referrers(BIG, SUBJECT, limit=20),
    "referrers of a type": lambda store: store.repositories.referrers(BIG, SUBJECT, TYPES[0], after=2000, limit=20),
    "models": lambda store: store.repositories.tagged(limit=20),
    "models of a reader": lambda store: store.repositories.tagged(
        readable=SOME, after=("bob/m-07", "latest"), version=3, limit=20
    ),
}


@pytest.mark.parametrize("listed", LISTS)
def test_a_page_is_one_query_that_walks_an_index(filled: Store, listed: str) -> None:
    with statements(filled.database) as sent:
        LISTS[listed](filled)

    assert len(sent) == 1
    found = plan(filled.database, sent[0])
    if listed.startswith("referrers"):
        assert "ix_manifests_repository_id_subject_id_artifact_type" in found, found
    elif filled.database.engine.dialect.name == "sqlite":
        assert not [line for line in found.splitlines() if line.startswith("SCAN") and "USING" not in line], found
        assert "TEMP B-TREE" not in found, found
    else:
        assert "Seq Scan" not in found, found
        assert "Sort" not in found or not listed.startswith("catalog"), found


def all_tags(store: Store, n: int, change: Callable[[int], None] = lambda _: None) -> list[str]:
    found: list[str] = []
    last, has_more = None, True
    for page in range(3000):
        if not has_more:
            break
        tags, has_more = store.repositories.tags(BIG, n=n, last=last)
        assert len(tags) == n or not has_more
        found += tags
        last = tags[-1] if tags else last
        change(page)
    return found


@use_one_store
@given(n=st.integers(150, 3000), gone=st.lists(st.integers(0, 1998).map(lambda n: n // 2 * 2), max_size=5))
def test_pages_of_tags_are_the_whole_whatever_comes_and_goes_between_them(
    filled: Store, n: int, gone: list[int]
) -> None:
    kept = {f"v{number:04}" for number in range(1, 2000, 2)} | {"latest"}

    def change(page: int) -> None:
        with contextlib.suppress(IndexError):
            tag = f"v{gone.pop():04}"  # an even one: an earlier example may have taken it
            with contextlib.suppress(ManifestUnknown):
                filled.repositories.delete_manifest(BIG, Tag(tag))

    found = all_tags(filled, n, change)

    assert found == sorted(set(found))
    assert kept <= set(found)


@use_one_store
@given(
    n=st.integers(7, 300),
    spaces=st.sets(st.sampled_from([*HIDDEN, "nobody"])),
    single=st.sets(st.sampled_from(["bob/m-07", "alice/m-00", "alice/none"])),
)
def test_pages_of_the_catalog_are_what_may_be_read(filled: Store, n: int, spaces: set[str], single: set[str]) -> None:
    readable = Readable(frozenset(spaces), frozenset(single))
    every, _ = filled.repositories.catalog()
    expected = [name for name in every if name.partition("/")[0] in spaces | {*SHOWN} or name in single]
    found: list[str] = []
    has_more = True
    while has_more and len(found) <= len(every):
        page, has_more = filled.repositories.catalog(n=n, last=found[-1] if found else None, readable=readable)
        found += page
        assert len(page) == n or not has_more  # nothing that is hidden shortens a page

    assert len(every) == 4 * MANY
    assert found == expected
    assert {row.repository for row in filled.repositories.tagged(readable=readable, limit=10_000)} == set(expected)


@use_one_store
@given(
    limit=st.integers(10, 2500),
    max_bytes=st.sampled_from([999, 1000, 1001, 5000, 10**7]),
    kind=st.sampled_from([None, "application/vnd.a"]),
    start=st.integers(2800, 2999),
)
def test_pages_of_referrers_are_the_whole_in_the_order_they_came(
    filled: Store, limit: int, max_bytes: int, kind: str | None, start: int
) -> None:
    expected = [number for number in range(start + 1, 3000) if kind in (None, TYPES[number % 3])]
    found: list[int] = []
    has_more = True
    while has_more and len(found) <= 2000:
        page, has_more = filled.repositories.referrers(
            BIG, SUBJECT, kind, after=found[-1] if found else start, limit=limit, max_bytes=max_bytes
        )
        assert len(page) <= min(limit, 1 + max_bytes // 100)
        found += [each.id for each in page]

    assert found == expected


def test_a_page_of_referrers_goes_on_where_a_deleted_one_was(filled: Store) -> None:
    page, has_more = filled.repositories.referrers(BIG, SUBJECT, limit=3)
    filled.repositories.delete_manifest(BIG, Digest.parse(page[-1].digest))
    filled.repositories.delete_manifest(BIG, Digest.parse(page[0].digest))

    rest, _ = filled.repositories.referrers(BIG, SUBJECT, after=page[-1].id, limit=2)

    assert has_more
    assert [each.id for each in page + rest] == [1000, 1001, 1002, 1003, 1004]


def test_a_large_referrer_is_read_alone(store: Store) -> None:
    name = RepositoryName("new/one")
    store.namespaces.create("new")
    store.uploads.start(name)
    with store.database.write() as session:
        session.execute(insert(rows.Manifest), [manifest(number, 1, SUBJECT, size=2**22) for number in (1, 2)])

    page, has_more = store.repositories.referrers(name, SUBJECT)

    assert ([each.id for each in page], has_more) == ([1], True)
    assert [each.id for each in store.repositories.referrers(name, SUBJECT, after=1)[0]] == [2]


def test_tags_of_nobody_are_unknown_whatever_the_page(filled: Store) -> None:
    for n in (None, 0, 1):
        with pytest.raises(NameUnknown):
            filled.repositories.tags(RepositoryName("alice/none"), n=n)


def test_a_summary_is_shown_until_its_manifest_goes(filled: Store) -> None:
    lists = filled.repositories
    first = lists.tagged(limit=1)[0]
    assert (first.repository, first.summary, first.digest) == ("alice/m-00", None, str(Digest.of(b"1")))

    lists.keep_summaries(1, {1: "{1}", 2: None, 3: "{3}", 99_999: "of a manifest that is gone"})

    assert lists.tagged(version=1, limit=1)[0][3:] == (1, "{1}", None)
    assert "bob/m-00" not in {row.repository for row in lists.tagged(version=1, limit=10_000)}
    assert "bob/m-00" in {row.repository for row in lists.tagged(version=2, limit=10_000)}
    lists.delete_manifest(RepositoryName("alice/m-00"), Digest.of(b"1"))
    assert lists.tagged(version=1, limit=1)[0].repository == "alice/m-01"


def test_a_summary_of_later_code_is_kept(filled: Store) -> None:
    for version, said in ((2, "{two}"), (1, "{one}"), (2, "{again}"), (3, "{three}")):
        filled.repositories.keep_summaries(version, {1: said})
        expected = "{three}" if version == 3 else "{two}"
        assert filled.repositories.tagged(version=1, limit=1)[0].summary == expected


def test_a_manifest_whose_blobs_are_not_all_here_waits_for_its_summary(filled: Store) -> None:
    with filled.database.write() as session:
        missing = {"manifest_id": 1, "digest": str(Digest.of(b"x")), "blob_id": None}
        session.execute(insert(rows.ManifestBlob).values(missing))

    assert filled.repositories.tagged(limit=1)[0].repository == "alice/m-01"
    filled.repositories.keep_summaries(1, {1: "{}"})
    assert filled.repositories.tagged(limit=1)[0].repository == "alice/m-00"


def test_tags_of_all_repositories_come_once_each_whatever_the_page(filled: Store) -> None:
    found: list[tuple[str, str]] = []
    for _ in range(100):
        page = filled.repositories.tagged(after=found[-1] if found else None, limit=97)
        found += [(row.repository, row.tag) for row in page]
        if len(page) < 97:
            break

    assert len(found) == 4 * MANY + 2000
    assert found == sorted(found)


def test_stepping_back_before_summaries_keeps_what_is_listed(filled: Store, database_url: str) -> None:
    filled.repositories.keep_summaries(1, {1: "{}"})
    before = filled.repositories.tagged(limit=10_000), filled.repositories.referrers(BIG, SUBJECT)
    filled.database.close()

    downgrade(database_url, "0003")
    upgrade(database_url)

    assert filled.repositories.tagged(limit=1)[0].digest == str(Digest.of(b"1"))
    filled.repositories.keep_summaries(1, {1: "{}"})
    assert (filled.repositories.tagged(limit=10_000), filled.repositories.referrers(BIG, SUBJECT)) == before
