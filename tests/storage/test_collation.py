"""Lists are in the order of bytes, whatever language the database sorts in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import auth.models  # noqa: F401  # its tables are migrated too
from auth.grants import KeyGrants
from auth.keys import PrivateKey
from auth.tokens import AccessTokens
from migrations.run import upgrade
from registry.mirror.mirrors import Mirrors, parse_mirror
from storage.db import Database
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.inventory import held_digests
from storage.manifest import OCI_MANIFEST
from storage.reference import RepositoryName, Tag
from storage.store import Store
from tests.databases import NO_SERVER, postgresql_database

pytestmark = NO_SERVER

# English puts these in another order: a-b, a.b, a_b, aB, ab, Z
TAGS = ["Z", "a-b", "a.b", "aB", "a_b", "ab"]
NAMES = ["a-b", "a.b", "a_b", "aa", "ab", "b-a"]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Migrated, in a database that sorts as English does."""
    english = "LOCALE_PROVIDER icu ICU_LOCALE 'en' ENCODING 'UTF8'"
    with postgresql_database("template0", more=english) as url:
        upgrade(url)
        database = Database(url)
        yield database
        database.close()


@pytest.fixture(scope="module")
def store(database: Database) -> Store:
    """Each name as namespace, each with the same tags in one repository."""
    store = Store(database, MemoryDriver())
    for name in reversed(NAMES):
        repository = RepositoryName(f"{name}/m")
        blob = store.blobs.put(repository, b"{}")
        descriptor = f'{{"mediaType": "a/b", "digest": "{blob.digest}", "size": 2}}'
        raw = f'{{"schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {descriptor}, "layers": []}}'
        store.repositories.put_manifest(repository, Tag(TAGS[-1]), raw.encode(), tags=map(Tag, TAGS[::-1]))
    return store


def all_of(page: Callable[[str | None], tuple[list[str], bool]]) -> list[str]:
    """Page after page of one."""
    found: list[str] = []
    has_more = True
    while has_more:
        names, has_more = page(found[-1] if found else None)
        found += names
    return found


REPOSITORY = RepositoryName(f"{NAMES[0]}/m")
LISTS: dict[str, tuple[Callable[[Store], list[str]], list[str]]] = {
    "namespaces": (lambda store: [each.name for each in store.namespaces.list()], NAMES),
    "catalog": (
        lambda store: all_of(lambda last: store.repositories.catalog(n=1, last=last)),
        [f"{name}/m" for name in NAMES],
    ),
    "tags": (lambda store: all_of(lambda last: store.repositories.tags(REPOSITORY, n=1, last=last)), TAGS),
    "models": (
        lambda store: [f"{each.repository}:{each.tag}" for each in store.repositories.tagged()],
        [f"{name}/m:{tag}" for name in NAMES for tag in TAGS],
    ),
    "holders": (
        lambda store: [str(name) for name in store.blobs.holders(Digest.of(b"{}"))],
        [f"{name}/m" for name in NAMES],
    ),
    "the first of tags that differ in case": (
        lambda store: [str(store.repositories.resolve_tag(REPOSITORY, Tag("AB")))],
        ["aB"],
    ),
}


def test_the_database_itself_sorts_otherwise(database):
    with database.connect() as connection:
        for texts in (TAGS, NAMES):
            found = connection.exec_driver_sql("SELECT unnest(%s::text[]) AS t ORDER BY t", (texts,)).scalars().all()
            assert sorted(found) == texts != found


@pytest.mark.parametrize("listed", LISTS)
def test_what_a_store_lists_is_in_the_order_of_bytes(store, listed):
    ask, expected = LISTS[listed]

    assert ask(store) == expected


def test_grants_tokens_and_mirrors_are_in_the_order_of_bytes(store):
    keys = [PrivateKey.from_seed(bytes([number]) * 32).public for number in range(8)]
    grants, tokens = KeyGrants(store.database), AccessTokens(store.database)
    for name in reversed(NAMES):
        for key in keys:
            grants.add(name, key, "pull")
        Mirrors(store.database).add(parse_mirror(f"{name}/mirrored", "https://registry.example"))
    for name in reversed(TAGS):
        tokens.create(name, scopes=["pull"])

    expected = [(name, print_) for name in NAMES for print_ in sorted(key.fingerprint for key in keys)]
    assert [(each.namespace, each.fingerprint) for each in grants.list()] == expected
    assert list(grants.roles_of(keys[0].fingerprint)) == NAMES
    assert [each.name for each in tokens.list()] == TAGS
    assert [str(each.prefix) for each in Mirrors(store.database).list()] == [f"{name}/mirrored" for name in NAMES]


def test_an_inventory_is_in_the_order_of_bytes(store):
    for number in range(20):
        algorithm = "sha512" if number % 2 else "sha256"
        store.blobs.put(REPOSITORY, b"%d" % number, algorithm=algorithm)

    found = list(map(str, held_digests(store.database, page_size=1)))

    assert len(found) == 21
    assert found == sorted(found)
