"""Notes of upload sessions in rows."""

import pytest
from sqlalchemy import func, insert, select, text, update

from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.http import Outbound
from registry.remotes.models import RemoteUpload
from registry.remotes.row_notes import RowNotes
from storage.db import Database
from storage.digest import Digest
from storage.reference import RepositoryName
from tests.databases import migrated

DIGEST = Digest.of(b"weights")
DAY_S = 86400


@pytest.fixture
def database(tmp_path):
    database = Database(migrated(tmp_path))
    yield database
    database.close()


def remote(server="https://r.example", path="a/m"):
    return RemoteRepository(Authenticator(Outbound()), server, RepositoryName(path))


def age(database, seconds):
    with database.begin() as connection:
        connection.execute(update(RemoteUpload).values(saved_at=RemoteUpload.saved_at - seconds))


def count(database):
    with database.connect() as connection:
        return connection.execute(select(func.count()).select_from(RemoteUpload)).scalar_one()


def test_another_process_finds_the_note(database):
    RowNotes(database).save(remote(), DIGEST, "https://r.example/s1")
    RowNotes(database).save(remote(), DIGEST, "https://r.example/s2")

    assert RowNotes(database).load(remote(), DIGEST) == "https://r.example/s2"
    assert count(database) == 1


@pytest.mark.parametrize(
    ("where", "digest"),
    [
        (remote("https://other.example"), DIGEST),
        (remote(path="a/other"), DIGEST),
        (remote(), Digest.of(b"other")),
    ],
    ids=["server", "repository", "digest"],
)
def test_a_note_is_for_one_blob_of_one_repository(database, where, digest):
    notes = RowNotes(database)
    notes.save(remote(), DIGEST, "https://r.example/s1")

    assert notes.load(where, digest) is None
    notes.forget(where, digest)
    assert notes.load(remote(), DIGEST) == "https://r.example/s1"


def test_what_is_forgotten_is_gone(database):
    notes = RowNotes(database)
    notes.save(remote(), DIGEST, "https://r.example/s1")

    notes.forget(remote(), DIGEST)

    assert count(database) == 0


@pytest.mark.parametrize(("days", "found"), [(6.9, "https://r.example/s1"), (7.1, None)])
def test_a_note_is_believed_for_a_week(database, days, found):
    RowNotes(database).save(remote(), DIGEST, "https://r.example/s1")
    age(database, days * DAY_S)

    assert RowNotes(database).load(remote(), DIGEST) == found


def test_notes_that_nobody_came_back_to_go_some_at_a_time(database):
    row = {"server": "https://r.example", "repository": "a/m", "url": "https://r.example/s"}
    with database.begin() as connection:
        connection.execute(insert(RemoteUpload), [{**row, "digest": str(n), "saved_at": n} for n in range(250)])
    left = []

    for _ in range(3):
        RowNotes(database).save(remote(), DIGEST, "https://r.example/s1")
        left.append(count(database))

    assert left == [151, 51, 1]


def test_a_database_out_of_order_ends_no_push(database):
    with database.begin() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        is_read_only = "PRAGMA query_only = ON" if is_sqlite else "SET default_transaction_read_only = on"
        connection.execute(text(is_read_only))  # stays with the pool's one idle connection
    notes = RowNotes(database)

    notes.save(remote(), DIGEST, "https://r.example/s1")

    assert notes.load(remote(), DIGEST) is None
