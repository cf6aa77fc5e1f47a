"""Blobs of which a program reads the first bytes alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.digest import Digest
from storage.errors import KeyUnknown, StorageUnavailable
from storage.local_copies import beginnings
from storage.local_copies.copies import LocalCopies
from storage.local_copies.folder import CopyFolder
from storage.local_copies.source import Wanted
from tests.gated_bucket import GatedBucket
from tests.storage.local_copies.conftest import go_on

SIZE = 2**20
FEW = 50_000


@pytest.fixture
def copies(open_copies: Callable[..., LocalCopies]) -> LocalCopies:
    return open_copies()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "beginnings").iterdir())


def test_a_beginning_is_fetched_once_and_is_as_long_as_the_blob(bucket: GatedBucket, open_copies, stored, folder: Path):
    wanted = stored(SIZE)
    data = bucket.objects[f"objects/{wanted.key}"]

    for copies in (open_copies(), open_copies()):
        with copies.hold_beginning(wanted, FEW) as held:
            assert held.path.read_bytes() == data[:FEW] + bytes(SIZE - FEW)
            assert held.path.stat().st_blocks * 512 < SIZE // 2

    assert bucket.calls["get"] == 1
    assert [path.stat().st_mode & 0o077 for path in files(folder)] == [0]


def test_a_whole_copy_serves_as_well(bucket: GatedBucket, copies: LocalCopies, stored, folder: Path):
    wanted = stored(SIZE)
    with copies.hold(wanted, go_on):
        pass
    before = bucket.calls["get"]

    with copies.hold_beginning(wanted, FEW) as held:
        assert Digest.of(held.path.read_bytes()) == wanted.digest

    assert bucket.calls["get"] == before
    assert not (folder / "beginnings").exists()


def test_one_that_is_cut_leaves_nothing(bucket: GatedBucket, copies: LocalCopies, stored, folder: Path):
    wanted = stored(SIZE)
    bucket.objects[f"objects/{wanted.key}"] = b"short"

    with pytest.raises(StorageUnavailable):
        copies.hold_beginning(wanted, FEW)
    del bucket.objects[f"objects/{wanted.key}"]
    with pytest.raises(KeyUnknown):
        copies.hold_beginning(wanted, FEW)

    assert files(folder) == []


def test_the_least_recently_used_makes_room_and_none_that_is_in_use(
    copies: LocalCopies, stored, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(beginnings, "_MOST_BYTES", 3 * FEW)
    first, second, third = (stored(SIZE, seed=seed) for seed in (1, 2, 3))

    with copies.hold_beginning(first, FEW) as held:
        in_the_making = held.path.with_name(f"{held.path.name}-0123")
        in_the_making.write_bytes(bytes(FEW))
        for wanted in (second, third):
            with copies.hold_beginning(wanted, FEW):
                pass
        os.utime(held.path, (0, 0))
        with copies.hold_beginning(stored(SIZE, seed=4), FEW) as newest:
            left = files(folder)

    assert {held.path, newest.path, in_the_making} == set(left)


def test_those_of_blobs_that_are_gone_are_tidied_away(copies: LocalCopies, stored, folder: Path):
    kept, gone = stored(SIZE, seed=1), stored(SIZE, seed=2)
    for wanted in (kept, gone):
        with copies.hold_beginning(wanted, FEW) as held:
            pass
    crashed = held.path.with_name(f"{held.path.name}-0123")
    crashed.write_bytes(b"cut")
    os.utime(crashed, (time.time() - 2 * 86400,) * 2)

    assert CopyFolder(folder).tidy(lambda digests: set(digests) & {kept.digest}) == 2

    assert [path.name.partition(".")[0] for path in files(folder)] == [f"sha256-{kept.digest.encoded}"]


def test_many_who_ask_at_once_fetch_it_once(bucket: GatedBucket, copies: LocalCopies, stored: Callable[..., Wanted]):
    wanted = stored(SIZE)

    def ask(_: int) -> int:
        with copies.hold_beginning(wanted, FEW) as held:
            return held.path.stat().st_size

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(16))) == {SIZE}
    assert bucket.calls["get"] == 1
