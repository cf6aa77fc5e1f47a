"""Finding an upload session again by what opened it."""

from io import BytesIO

from storage.digest import Digest
from storage.reference import RepositoryName
from storage.sessions import newest_session

DATA = b"weights"


def test_the_newest_open_session_of_the_repository_is_found(store, name):
    store.uploads.start(name, opened_with="a")
    newest = store.uploads.start(name, opened_with="a")
    store.uploads.start(name, opened_with="b")
    store.uploads.start(RepositoryName("some/other"), opened_with="a")

    assert newest_session(store.database, name, "a") == newest.id


def test_a_session_that_has_ended_is_not_found(store, name):
    store.uploads.start(name, opened_with="a").complete(BytesIO(DATA), Digest.of(DATA))
    store.uploads.start(name, opened_with="a").cancel()

    assert newest_session(store.database, name, "a") is None
