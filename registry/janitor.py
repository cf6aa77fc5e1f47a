"""The process that tidies up beside a server: it ends upload sessions nobody touches, sweeps what nobody needs, keeps
what mirrors fetched within bounds, and syncs those that are due.

It also says that this node's signing keys are still in use.

Run as `python -m registry.janitor`, told everything by its parent over standard input. Any number of nodes may have
one. It may be killed at any line: each step is complete in itself, and the next janitor goes on where this one ended.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from auth.audit import AuditTrail
from auth.errors import AuthError
from auth.key_set import KeySet
from auth.keys import PublicKey
from auth.published_keys import PublishedKeys
from registry.config import Config
from registry.mirror.cache import MirrorCache, Watermarks
from registry.mirror.schedule import Schedule, Syncing
from registry.mirror.sync import Means
from registry.remotes.service import Remotes
from runtime.process import die_with_parent
from storage import layout
from storage.db import Database
from storage.drivers.choose import open_driver
from storage.errors import StorageError
from storage.local_copies.folder import CopyFolder
from storage.store import Store

EVERY_S: Final = 240.0  # so that a deleted model's space is back within ten minutes, with a sweep that takes a while
_JITTER: Final = 0.2  # nodes that were started together drift apart
_SWEEP_S: Final = 240.0  # a sweep gives way to the next turn after this
_EXPIRE_ROUNDS: Final = 100

_log: Final = logging.getLogger("tonnage.janitor")


def tidy(store: Store, marks: Watermarks = Watermarks()) -> None:  # noqa: B008  # a frozen value
    """One turn. A store that does not answer is tidied the next time. marks: of what the mirrors keep here."""
    cache = MirrorCache(store, marks)
    try:
        expired = _all_of(store.uploads.expire) + _all_of(cache.expire_staged) + store.collector.forget_staged()
        deadline = time.monotonic() + _SWEEP_S
        swept = store.collector.sweep(go_on=lambda: time.monotonic() < deadline)
        evicted = cache.trim(go_on=lambda: time.monotonic() < deadline)
        forgotten = cache.forget_manifests()
        pruned = AuditTrail(store.database).prune()
    except StorageError as error:
        _log.warning("the store refuses: %s", error)
        return
    if expired or swept.links or swept.objects or pruned:
        counts = (expired, swept.links, swept.objects, swept.size, pruned)
        _log.info("uploads=%d links=%d objects=%d bytes=%d audit=%d", *counts)
    if evicted or forgotten:
        _log.info("mirrors: bytes=%d manifests=%d", evicted, forgotten)


def _all_of(expire: Callable[[], int]) -> int:
    """Batch after batch; how many there were."""
    total = 0
    for _ in range(_EXPIRE_ROUNDS):
        expired = expire()
        total += expired
        if not expired:
            break
    return total


def main() -> None:
    told = json.loads(sys.stdin.buffer.readline())
    config = Config.from_json(told["config"])
    die_with_parent(told["parent"])
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    every_s = float(told.get("every_s", EVERY_S))
    store = Store(Database(config.database_url, connections=2), open_driver(config.data_path, config.bucket))
    marks = Watermarks(config.mirror_high_bytes, config.mirror_low_bytes)
    syncing = Syncing(lambda: _means(config), Schedule(store.database))
    keys = own_keys(config)
    while True:  # ended by a signal: the server's word, or its death
        time.sleep(every_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  # not a secret
        tidy(store, marks)
        if config.bucket is not None:
            tidy_copies(store, CopyFolder(layout.cache_folder(config.data_path)))
        keys = say_keys(config, store.database, before=keys)
        syncing.start()


def tidy_copies(store: Store, folder: CopyFolder) -> None:
    """What crashes left on this node, and copies of blobs that are no more. Others stay until they make room."""
    try:
        gone = folder.tidy(store.files.known)
    except StorageError as error:
        _log.warning("local copies are not tidied: %s", error)
        return
    if gone:
        _log.info("copies=%d", gone)


def own_keys(config: Config) -> Sequence[PublicKey]:
    """Those that this node signs with now; none where they cannot be read."""
    try:
        return KeySet(config.keys_path).own
    except AuthError as error:
        _log.warning("this node's keys are not published: %s", error)
        return ()


def say_keys(config: Config, database: Database, *, before: Sequence[PublicKey]) -> Sequence[PublicKey]:
    """The other nodes believe what this one signs for as long as it says with which keys; those said now.

    before: said the last time. Those of them that are gone are withdrawn, should whoever removed them not have come to
    say so.
    """
    keys = own_keys(config)
    if not keys:
        return before
    try:
        PublishedKeys(database).publish(keys, instead_of=before)
    except StorageError as error:
        _log.warning("this node's keys are not published: %s", error)
        return before
    return keys


def _means(config: Config) -> Means:
    """What mirrors are synced with: connections of its own, since tidying goes on meanwhile."""
    store = Store(Database(config.database_url, connections=8), open_driver(config.data_path, config.bucket))
    return Means.of(Remotes(config.remotes), store, most_bytes=config.mirror_low_bytes or None)


if __name__ == "__main__":
    main()
