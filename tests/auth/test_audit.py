"""The audit trail: what is a row, what is counted, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from auth.audit import KEPT_S, AuditTrail, Event, What, system_user, who_is
from auth.identity import Anonymous, KeyHolder, TokenHolder, TokenScope
from auth.later import Later
from auth.models import AuditRow
from auth.peers import site_of
from auth.tallies import WINDOW_S, Tallies
from storage.db import Database
from storage.models import Namespace
from tests.databases import NO_SERVER, migrated_postgresql_database, sqlite_template
from tests.server import wait_for

NOW = 1_700_000_000.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=NO_SERVER)])
def trail_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Migrated, so with the triggers; `alice` is private, `public` is not."""
    if request.param == "sqlite":
        (tmp_path / "trail.db").write_bytes(sqlite_template())
        yield from prepared(f"sqlite:///{tmp_path}/trail.db")
    else:
        with migrated_postgresql_database() as url:
            yield from prepared(url)


def prepared(url: str) -> Iterator[Database]:
    database = Database(url)
    with database.write() as session:
        for name, is_private in (("alice", True), ("public", False)):
            session.execute(insert(Namespace).values(name=name, is_private=is_private, created_at=0.0))
    yield database
    database.close()


@pytest.fixture
def trail(trail_database: Database) -> AuditTrail:
    return AuditTrail(trail_database, now=lambda: NOW)


def happened(what: What = What.PUSH, at: float = NOW, **fields: object) -> Event:
    return Event(what, **{"who": "token:ci", "at": at, **fields})  # type: ignore[arg-type]


def flush(trail: AuditTrail, database: Database, *, everything: bool = False) -> None:
    Later(database, [trail]).flush(everything=everything)


def test_rows_come_back_as_they_were_written_the_oldest_first_over_any_number_of_pages(trail):
    events = [happened(at=NOW + number % 7, reference=str(number)) for number in range(1234)]
    trail.write(*events)

    read = list(trail.events())

    assert read == sorted(events, key=lambda each: each.at)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "abcd"),
        ({"since": NOW}, "cd"),
        ({"who": "cli:root"}, "b"),
        ({"what": What.PUSH}, "ad"),
        ({"repository": "alice/model"}, "a"),
        ({"repository": "alice"}, "ac"),
        ({"repository": "alice", "what": What.PUSH, "since": NOW - 5}, "a"),
        ({"who": "nobody"}, ""),
    ],
)
def test_rows_are_chosen_by_time_who_what_and_where(trail, asked, found):
    trail.write(
        happened(at=NOW - 3, namespace="alice", repository="alice/model", reference="a"),
        happened(What.KEY_ADD, NOW - 2, who="cli:root", reference="b"),
        happened(What.KEY_ADD, NOW, namespace="alice", reference="c"),
        happened(at=NOW + 1, namespace="bob", repository="bob/model", reference="d"),
    )

    assert "".join(each.reference or "" for each in trail.events(**asked)) == found


def test_the_database_itself_refuses_to_change_a_row(trail, trail_database):
    trail.write(happened())

    with pytest.raises(DBAPIError, match="only ever added to"), trail_database.write() as session:
        session.execute(text("UPDATE audit SET who = 'somebody else'"))

    assert [each.who for each in trail.events()] == ["token:ci"]


def test_a_flood_of_refusals_is_one_row_now_and_one_at_the_end_of_the_minute(trail, trail_database):
    for number in range(1000):
        trail.count(happened(What.REFUSE, address="203.0.113.9", who=f"key:{number}", reference=str(number)))
        if number == 0:
            flush(trail, trail_database)
    flush(trail, trail_database)

    assert [each.count for each in trail.events()] == [1]
    flush(trail, trail_database, everything=True)
    assert [(each.count, each.reference) for each in trail.events()] == [(1, "0"), (999, "999")]


def test_refusals_from_more_places_than_can_be_told_apart_are_bounded_rows(trail, trail_database):
    for number in range(5000):
        trail.count(happened(What.REFUSE, address=f"10.0.{number // 250}.{number % 250}"))

    for _ in range(20):
        flush(trail, trail_database)

    events = list(trail.events())
    assert len(events) == 2001
    assert sum(each.count for each in events) == 5000
    assert max(events, key=lambda each: each.count).who == "many"


def test_a_pull_is_a_row_where_the_namespace_is_private(trail, trail_database):
    for name in ("alice/model", "public/model", "alice/other", "alice/model"):
        namespace = name.partition("/")[0]
        trail.count(happened(What.PULL, namespace=namespace, repository=name, reference="v1"))

    flush(trail, trail_database)

    assert sorted((each.repository, each.count) for each in trail.events()) == [("alice/model", 2), ("alice/other", 1)]


def test_what_a_stranger_sends_is_shortened_and_made_harmless(trail):
    trail.write(happened(What.REFUSE, repository="a\0\x1b[2J\u202eb" + "x" * 1000, reference="\ud800", detail="ä\n"))

    [row] = trail.events()

    assert row.repository.startswith("a??[2J?bxx") and len(row.repository) == 255
    assert (row.reference, row.detail) == ("?", "ä?")


def test_rows_that_the_database_did_not_take_are_written_when_it_does(trail, trail_database, tmp_path):
    broken = Database(f"sqlite:///{tmp_path}/no/such/folder.db")
    trail.keep(happened(reference="a"), happened(reference="b"))
    trail.count(happened(What.REFUSE))
    Later(broken, [trail]).flush()

    flush(trail, trail_database)

    assert sorted(each.reference or "" for each in trail.events()) == ["", "a", "b"]


def test_rows_older_than_400_days_are_pruned(trail):
    trail.write(*(happened(at=NOW - KEPT_S + offset, reference=str(offset)) for offset in (-86400, -1, 0, 1)))

    assert trail.prune() == 2
    assert [each.reference for each in trail.events()] == ["0", "1"]


def test_of_too_many_rows_those_that_strangers_make_go_first(trail_database):
    trail = AuditTrail(trail_database, now=lambda: NOW, max_rows=100)
    trail.write(*(happened(at=NOW - 1000 + number) for number in range(40)))
    trail.write(*(happened(What.REFUSE, at=NOW - 900 + number) for number in range(500)))

    assert trail.prune() == 440

    left = [each.what for each in trail.events()]
    assert (left.count(What.PUSH), left.count(What.REFUSE)) == (40, 60)
    assert trail.prune() == 0


def test_changes_go_too_when_they_alone_are_too_many_the_oldest_first(trail_database):
    trail = AuditTrail(trail_database, now=lambda: NOW, max_rows=100)
    trail.write(*(happened(What.REFUSE, at=NOW) for number in range(50)))
    trail.write(*(happened(at=NOW - 1000 + number) for number in range(200)))

    trail.prune()

    left = list(trail.events())
    assert len(left) == 100
    assert min(each.at for each in left) == NOW - 1000 + 150


def test_a_transaction_that_is_undone_leaves_no_row(trail, trail_database):
    with pytest.raises(RuntimeError), trail_database.write() as session:
        trail.add(session, happened())
        raise RuntimeError

    assert list(trail.events()) == []


@pytest.mark.parametrize(
    ("identity", "named"),
    [
        (Anonymous(), "anonymous"),
        (KeyHolder(fingerprint="SHA256:abc", roles={}), "key:SHA256:abc"),
        (TokenHolder(token_id="x", name="ci", scopes=frozenset({TokenScope.PULL}), namespaces=None), "token:ci"),
    ],
)
def test_somebody_is_named_as_administrators_know_them(identity, named):
    assert who_is(identity) == named


def test_commands_are_by_whoever_types_them():
    assert system_user().startswith("cli:")


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("", ""),
        ("@", ""),
    ],
)
def test_an_ipv6_customer_is_one_place(address, site):
    assert site_of(address) == site


def test_a_tally_is_due_at_once_then_once_a_window_and_forgotten_when_nothing_came(clock):
    tallies: Tallies[str, int] = Tallies(2, now=clock)
    assert tallies.add("a", 1) and tallies.add("a", 2) and tallies.add("b", 3)
    assert not tallies.add("c", 4)

    assert tallies.take(10) == [("a", 2, 2), ("b", 3, 1)]
    tallies.add("a", 5)
    assert tallies.take(10) == []
    clock.now += WINDOW_S
    assert tallies.take(10) == [("a", 5, 1)]
    assert len(tallies) == 1


def test_what_is_given_back_is_due_again_with_its_count(clock):
    tallies: Tallies[str, int] = Tallies(2, now=clock)
    tallies.add("a", 1)
    taken = tallies.take(10)
    tallies.add("a", 2)

    tallies.give_back(taken)

    assert tallies.take(10) == [("a", 2, 2)]


def test_a_thread_writes_what_is_waiting_and_goes_on_after_a_bug(trail, trail_database):
    class Broken:
        left = 1

        def take(self, limit: int, *, everything: bool = False) -> list[int]:
            self.left, taken = 0, [1] * self.left
            return taken

        def put(self, session: object, taken: object) -> None:
            raise ZeroDivisionError

        def give_back(self, taken: object) -> None: ...

        def __len__(self) -> int:
            return self.left

    broken = Broken()
    later = Later(trail_database, [broken, trail], gather_s=0.01)
    later.wake()
    wait_for(lambda: not broken.left, 10, "the bug to be met")

    def rows() -> int:
        with trail_database.read() as session:
            return session.scalar(select(func.count()).select_from(AuditRow)) or 0

    trail.count(happened(What.REFUSE))
    later.wake()

    wait_for(lambda: rows() == 1, 10, "the row to be written")
    later.close()
