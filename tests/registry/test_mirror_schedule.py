"""Whose turn it is to sync a mirror, and when the next one is."""

from __future__ import annotations

import pytest

from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.schedule import RETRY_S, Schedule
from registry.remotes.http import Origin
from storage.errors import NameUnknown
from storage.reference import RepositoryName
from tests.databases import DATABASE, NO_SERVER
from tests.registry.mirror_nodes import Clock
from tests.storage import conftest as storage_fixtures

# a database as the store's own tests have it
database_url = storage_fixtures.database_url
database = storage_fixtures.database

on_both = pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=NO_SERVER)], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", DATABASE))


@on_both
def test_of_two_nodes_one_has_the_turn_until_the_mirror_is_due_again(database):
    Mirrors(database).add(Mirror(RepositoryName("far"), Origin.of("https://far.example")))
    clock = Clock()
    here, there = Schedule(database, clock=clock), Schedule(database, clock=clock)
    assert here.claim() is None

    here.put(RepositoryName("far"), 3600.0)

    turn = here.claim()
    assert turn is not None and turn.mirror.prefix == RepositoryName("far")
    assert 3240.0 <= turn.next_at - clock.now <= 3960.0
    assert there.claim() is None
    clock.now = turn.next_at
    assert there.claim() is not None
    assert here.claim() is None


@pytest.mark.parametrize(("every_s", "pause_s"), [(6 * 3600.0, RETRY_S), (120.0, 120.0)])
def test_a_turn_that_failed_comes_again_soon(database, every_s, pause_s):
    Mirrors(database).add(Mirror(RepositoryName("far"), Origin.of("https://far.example")))
    clock = Clock()
    schedule = Schedule(database, clock=clock)
    schedule.put(RepositoryName("far"), every_s)
    turn = schedule.claim()
    assert turn is not None

    schedule.try_again(turn)

    clock.now += pause_s - 1
    assert schedule.claim() is None
    clock.now += 1
    assert schedule.claim() is not None


def test_a_schedule_that_was_set_meanwhile_is_left_alone(database):
    Mirrors(database).add(Mirror(RepositoryName("far"), Origin.of("https://far.example")))
    clock = Clock()
    schedule = Schedule(database, clock=clock)
    schedule.put(RepositoryName("far"), 3600.0)
    turn = schedule.claim()
    assert turn is not None
    schedule.put(RepositoryName("far"), None)

    schedule.try_again(turn)

    clock.now += 10 * 3600
    assert schedule.claim() is None
    with pytest.raises(NameUnknown):
        schedule.put(RepositoryName("nowhere"), 60.0)
