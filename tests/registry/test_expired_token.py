"""An upload that outlives its bearer token."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.policy import CATALOG
from auth.scopes import Scope
from auth.tokens import UPLOAD_GRACE_S, AccessTokens, TokenSigner
from storage.db import Database
from storage.digest import Digest
from storage.reference import RepositoryName
from storage.store import Store
from tests.backends import driver_of
from tests.client import Client
from tests.databases import url_of
from tests.server import Server, running_server

NAME = RepositoryName("acme/model")
DATA = os.urandom(5000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("expired") / "data") as running:
        yield running


class Pusher:
    """A session opened with a bearer token that was issued `age_s` ago."""

    def __init__(self, server: Server, data: Path, *, age_s: float) -> None:
        self.database = Database(url_of(data))
        self.name = f"pusher-{os.urandom(4).hex()}"
        holder = AccessTokens(self.database).verify(AccessTokens(self.database).create(self.name, scopes=["push"]))
        signer = TokenSigner(data / "keys", now=lambda: time.time() - age_s)
        scopes = (Scope.of("repository", str(NAME), ("pull", "push")), CATALOG)
        issued = signer.issue(holder.principal, "tonnage", scopes)
        self.client = Client(server.host, issued.text)
        claims = TokenSigner(data / "keys", now=lambda: time.time() - age_s).verify(issued.text, "tonnage")
        store = Store(self.database, driver_of(data))
        opened = store.uploads.start(NAME, principal=holder.principal, opened_with=claims.token_id)
        self.session = f"/v2/{NAME}/blobs/uploads/{opened.id}"
        other = store.uploads.start(NAME, principal=holder.principal, opened_with="another")
        self.other = f"/v2/{NAME}/blobs/uploads/{other.id}"

    def finish(self, session: str) -> int:
        sent = self.client.request("PATCH", session, DATA[:2000])
        if sent.status != 202:
            return sent.status
        return self.client.request("PUT", f"{session}?digest={Digest.of(DATA)}", DATA[2000:]).status


def test_a_session_ends_after_the_token_that_opened_it(server):
    pusher = Pusher(server, server.data, age_s=3600)

    assert pusher.finish(pusher.session) == 201


def test_the_token_is_good_for_nothing_else(server):
    pusher = Pusher(server, server.data, age_s=3600)

    assert pusher.finish(pusher.other) == 401
    assert pusher.client.request("POST", f"/v2/{NAME}/blobs/uploads/").status == 401
    assert pusher.client.request("GET", f"/v2/{NAME}/tags/list").status == 401
    assert pusher.client.request("PUT", f"/v2/{NAME}/manifests/v1", b"{}").status == 401


def test_a_day_later_it_is_good_for_nothing(server):
    pusher = Pusher(server, server.data, age_s=UPLOAD_GRACE_S + 1000)

    assert pusher.finish(pusher.session) == 401


def test_who_was_shut_out_meanwhile_stays_out(server):
    pusher = Pusher(server, server.data, age_s=3600)
    server.run("token", "revoke", pusher.name)

    assert pusher.finish(pusher.session) == 401
