"""Nodes believe what the others sign, for as long as those say with which keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import insert

from auth.errors import SignatureInvalid, SigningKeyUnknown, TokenInvalid
from auth.key_set import KeySet, rotate
from auth.keys import PrivateKey
from auth.models import SigningKey
from auth.published_keys import FRESH_S, KEPT_S, PublishedKeys
from auth.signed_urls import UrlSigner
from auth.tokens import LIFE_S, TokenSigner
from storage.db import Database
from tests.auth.conftest import Clock

PATH = f"/v2/acme/model/blobs/sha256:{'0' * 64}"


@dataclass
class Node:
    """What of a node signs and verifies; its keys are those of its folder when it started."""

    folder: Path
    published: PublishedKeys
    clock: Clock

    def __post_init__(self) -> None:
        self.keys = KeySet(self.folder, elsewhere=self.published.find)
        self.signer = TokenSigner(self.folder, elsewhere=self.published.find, now=self.clock)
        self.urls = UrlSigner(self.keys, now=self.clock)
        self.published.publish(self.keys.own)

    def token(self) -> str:
        return self.signer.issue("anonymous", "s", ()).text

    def believes(self, token: str) -> bool:
        try:
            return self.signer.verify(token, "s").subject == "anonymous"
        except TokenInvalid:
            return False


@pytest.fixture
def start(database: Database, tmp_path: Path, clock: Clock) -> Callable[[str], Node]:
    return lambda name: Node(tmp_path / name, PublishedKeys(database, now=clock), clock)


def test_a_token_of_one_node_is_good_on_another_that_started_before_it(start):
    first = start("first")
    second = start("second")

    assert first.believes(second.token())
    assert second.believes(first.token())
    assert {path.name for path in first.folder.iterdir()} == {"token-1.pem"}


def test_so_is_an_address(start):
    url = start("first").urls.sign(PATH, "token:a")

    assert start("second").urls.verify("GET", PATH, dict(parse_qsl(urlsplit(url).query))).principal == "token:a"


def test_a_stranger_to_the_database_is_not_believed(start, tmp_path, clock):
    stranger = TokenSigner(tmp_path / "stranger", now=clock).issue("anonymous", "s", ()).text
    url = UrlSigner(KeySet(tmp_path / "stranger"), now=clock).sign(PATH, "token:a")
    node = start("node")

    assert not node.believes(stranger)
    with pytest.raises(SignatureInvalid):
        node.urls.verify("GET", PATH, dict(parse_qsl(urlsplit(url).query)))


def test_a_key_that_was_rotated_away_is_believed_no_more_though_a_token_of_it_was_seen(start, clock):
    first, second = start("first"), start("second")
    old = first.token()
    assert second.believes(old)

    before = first.keys.own
    rotate(first.folder, keep=1)
    first.published.publish(KeySet(first.folder).own, instead_of=before)
    clock.now += FRESH_S

    assert not second.believes(old)
    assert not first.believes(old)
    assert second.believes(start("first").token())


def test_a_new_key_under_the_name_of_one_that_was_removed_is_not_taken_for_it(start):
    node = start("node")
    old, path = node.token(), node.folder / "token-1.pem"
    assert node.believes(old)

    path.unlink()
    KeySet(node.folder)  # as any process of the node does when it is started, or tidies up
    assert path.exists()

    assert not node.believes(old)


def test_a_key_that_is_written_again_is_the_same_one(start):
    node = start("node")
    path = node.folder / "token-1.pem"
    assert node.believes(node.token())
    copy = path.with_suffix(".new")
    copy.write_bytes(path.read_bytes())

    copy.replace(path)

    assert node.believes(node.token())


def test_the_key_of_a_node_that_is_lost_can_be_withdrawn(start, clock):
    first, second = start("first"), start("second")
    lost = first.token()
    assert second.believes(lost)
    assert {each.id for each in second.published.list()} == {first.keys.signing_id, second.keys.signing_id}

    second.published.withdraw(first.keys.signing_id)
    clock.now += FRESH_S

    assert not second.believes(lost)
    assert [each.id for each in second.published.list()] == [second.keys.signing_id]


@pytest.mark.parametrize("key_id", ["", "A" * 16, "' OR 1=1 --", "\0" * 16])
def test_a_key_that_nobody_said_cannot_be_withdrawn(start, key_id):
    node = start("node")

    with pytest.raises(SigningKeyUnknown):
        node.published.withdraw(key_id)

    assert node.believes(node.token())


def test_what_a_node_signed_outlives_it_by_days_and_not_for_ever(start, clock):
    first, second = start("first"), start("second")
    old = first.urls.sign(PATH, "token:a")
    clock.now += KEPT_S / 3 - 1

    assert second.urls.verify("GET", PATH, dict(parse_qsl(urlsplit(old).query)))

    clock.now += KEPT_S
    second.published.publish(second.keys.own)
    assert not second.believes(first.token())
    first.published.publish(first.keys.own)
    assert second.believes(first.token())


@pytest.mark.parametrize("blob", ["AAAA", "", PrivateKey.generate().public.blob_base64])
def test_a_row_that_is_no_key_or_another_one_is_not_believed(start, database, tmp_path, clock, blob):
    forger = TokenSigner(tmp_path / "forger", now=clock)
    with database.write() as session:
        session.execute(insert(SigningKey).values(id=forger.keys.signing_id, blob=blob, seen_at=clock.now))

    assert not start("node").believes(forger.issue("anonymous", "s", ()).text)


@pytest.mark.parametrize("wanted", ["", "x" * 15, "x" * 17, "x" * 15 + "\0", "x" * 15 + "é", "None"])
def test_what_no_key_is_called_is_not_looked_for(tmp_path, wanted):
    nowhere = Database(f"sqlite:///{tmp_path}/no/such/folder/t.db")

    assert PublishedKeys(nowhere).find(wanted) is None


def test_a_token_that_was_believed_expires_all_the_same(start, clock):
    first, second = start("first"), start("second")
    token = first.token()
    assert second.believes(token)

    clock.now += LIFE_S + 100

    assert not second.believes(token)
