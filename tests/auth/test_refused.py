"""Keys that were refused: kept, counted, bounded, and let in by the command that is shown."""

from __future__ import annotations

import logging

import pytest

from auth.errors import GrantUnknown
from auth.keys import PrivateKey
from auth.later import Later
from auth.refused import Refused, RefusedKeys
from tests.auth.vectors import LINE


@pytest.fixture
def refused(database, clock) -> RefusedKeys:
    return RefusedKeys(database, now=clock)


@pytest.fixture
def later(database, refused) -> Later:
    return Later(database, [refused])


def test_a_refused_key_is_kept_with_what_it_wanted_and_from_where(refused, later, key, clock):
    refused.saw(key.public, address="203.0.113.9", wanted="alice/tiny:pull,push")
    later.flush()

    [row] = refused.list()

    assert row == Refused(key.public, "203.0.113.9", "alice/tiny:pull,push", clock.now, clock.now, 1)
    assert row.key.line == LINE
    assert refused.get(key.public.fingerprint) == row


def test_a_key_that_comes_again_and_again_is_written_once_a_minute(refused, later, key, clock):
    first = clock.now
    for number in range(100):
        clock.now = first + number
        refused.saw(key.public, address=f"10.0.0.{number}", wanted="alice/tiny:pull")
        later.flush()

    assert [each.count for each in refused.list()] == [1]
    later.flush(everything=True)
    [row] = refused.list()
    assert (row.count, row.first_seen_at, row.last_seen_at, row.address) == (100, first, first + 99, "10.0.0.99")


def test_it_is_logged_once_and_by_its_fingerprint_alone(refused, later, key, caplog):
    with caplog.at_level(logging.INFO, "tonnage.auth"):
        for _ in range(3):
            refused.saw(key.public, address="203.0.113.9")
            later.flush(everything=True)

    [line] = [record.getMessage() for record in caplog.records]
    assert key.public.fingerprint in line
    assert key.public.blob_base64 not in line


def test_there_are_never_more_than_the_last_ones(database, clock):
    refused = RefusedKeys(database, now=clock, max_kept=5)
    later = Later(database, [refused])
    keys = [PrivateKey.generate().public for _ in range(12)]
    for each in keys:
        clock.now += 1
        refused.saw(each, address="203.0.113.9")
        later.flush()

    assert [each.key for each in refused.list()] == keys[-5:]


def test_a_key_that_was_let_in_meanwhile_is_not_listed(refused, later, grants, key):
    refused.saw(key.public, address="203.0.113.9")
    grants.add("alice", key.public, "push")

    later.flush()

    assert refused.list() == ()


def test_keys_are_forgotten_one_by_one_or_all(refused, later, key):
    others = [PrivateKey.generate().public for _ in range(2)]
    for each in (key.public, *others):
        refused.saw(each, address="203.0.113.9")
    later.flush()

    assert refused.forget(key.public.fingerprint) == 1
    with pytest.raises(GrantUnknown):
        refused.get(key.public.fingerprint)
    assert refused.forget() == 2
    assert refused.list() == ()


@pytest.mark.parametrize(
    ("wanted", "arguments"),
    [
        ("alice/tiny:pull", ("alice", "pull")),
        ("alice/tiny:pull,push", ("alice", "push")),
        ("alice/tiny:delete", ("alice", "admin")),
        ("localhost:5000/tiny:push", ("NAMESPACE", "push")),
        ("x; rm -rf $HOME/y:push", ("NAMESPACE", "push")),
        ("$(reboot)/y:push", ("NAMESPACE", "push")),
        ("", ("NAMESPACE", "push")),
        ("nonsense", ("NAMESPACE", "push")),
    ],
)
def test_the_command_lets_it_in_and_holds_no_words_of_a_stranger(key, wanted, arguments):
    namespace, role = arguments

    command = Refused(key.public, "", wanted, 0.0, 0.0, 1).command

    assert command == f"tonnage key add {namespace} {key.public.fingerprint} --role {role}"


def test_control_characters_do_not_reach_the_terminal(refused, later, key):
    refused.saw(key.public, address="203.0.113.9", wanted="a\x1b[2J\0/b:push" + "x" * 1000)
    later.flush()

    [row] = refused.list()
    assert row.wanted.startswith("a?[2J?/b:pushx") and len(row.wanted) == 300


def test_a_tokens_use_is_written_once_a_minute(tokens, database, clock):
    secret = tokens.create("ci", scopes=["pull"])
    later, woken = Later(database, [tokens.uses]), []
    tokens.uses.wake = lambda: woken.append(1)
    first = clock.now
    for number in range(130):
        clock.now = first + number
        tokens.verify(secret)
        later.flush()

    [listed] = tokens.list()
    assert listed.last_used_at == first + 120
    assert len(woken) == 3


def test_a_token_that_is_refused_counts_as_unused(tokens, database, clock):
    secret = tokens.create("ci", scopes=["pull"], expires_at=clock.now + 1)
    clock.now += 2
    with pytest.raises(Exception, match="expired"):
        tokens.verify(secret)

    Later(database, [tokens.uses]).flush()

    assert [each.last_used_at for each in tokens.list()] == [None]
