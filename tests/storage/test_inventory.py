"""What a store says it holds, by digest."""

from __future__ import annotations

from storage.digest import Digest
from storage.inventory import held_digests
from storage.reference import HoldingName, RepositoryName
from storage.store import Store


def test_every_blob_that_a_repository_holds_is_listed_once_in_order(store: Store) -> None:
    kept = [store.blobs.put(RepositoryName("acme/a"), b"%d" % n).digest for n in range(10)]
    store.blobs.put(RepositoryName("acme/b"), b"7")
    longer = store.blobs.put(RepositoryName("acme/b"), b"7", algorithm="sha512").digest
    store.blobs.put(HoldingName.of("somebody"), b"waits for a repository")
    gone = store.blobs.put(RepositoryName("acme/b"), b"unlinked").digest
    store.blobs.unlink(RepositoryName("acme/b"), gone)

    listed = list(held_digests(store.database, page_size=3))

    assert listed == sorted([*kept, longer], key=str)
    assert Digest.of(b"7") in listed
