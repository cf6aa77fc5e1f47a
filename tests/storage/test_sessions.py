"""Finding an upload session again by what opened it."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Barrier

from storage.digest import Digest
from storage.reference import RepositoryName
from storage.sessions import newest_session, staged_handle

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


def test_of_many_who_begin_at_once_one_opens_the_session(store, name):
    everybody = Barrier(8, timeout=10)

    def begin(_: int) -> str:
        everybody.wait()
        return store.uploads.start(name, opened_with="a", is_only=True).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(begin, range(8)))) == 1


def test_the_only_session_is_joined_with_what_it_holds(store, name):
    first = store.uploads.start(name, opened_with="a", is_only=True)
    first.append(BytesIO(DATA))

    joined = store.uploads.start(name, opened_with="a", is_only=True)

    assert (joined.id, joined.offset) == (first.id, len(DATA))
    assert staged_handle(store.database, name, "a") is not None
    assert staged_handle(store.database, name, "b") is None
