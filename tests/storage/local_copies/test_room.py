"""Room for copies: the least recently used goes first, what is in use never, and what crashes left goes in the end."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from storage.errors import StorageFull, StorageUnavailable
from storage.local_copies.folder import CopyFolder
from storage.local_copies.made import made_file, tidy_made
from storage.local_copies.partial import MARK_BYTES
from tests.storage.local_copies.conftest import PIECE, go_on

SIZE = 2 * PIECE
TWO = 2 * (SIZE + MARK_BYTES)


def fetched(copies, *blobs) -> None:
    for age, blob in enumerate(reversed(blobs)):
        with copies.hold(blob, go_on) as copy:
            pass
        used_at = time.time() - 100 * (age + 1)
        os.utime(copy.path, (used_at, used_at))


def here(folder, *blobs) -> list[bool]:
    return [CopyFolder(folder).copy_of(blob.digest).exists() for blob in blobs]


def test_the_least_recently_used_makes_room(open_copies, stored, folder):
    first, second, third = (stored(SIZE, seed) for seed in (1, 2, 3))
    copies = open_copies(TWO)
    fetched(copies, first, second)
    with copies.hold(first, go_on):
        pass

    with copies.hold(third, go_on):
        assert here(folder, first, second, third) == [True, False, True]


def test_what_is_in_use_never_goes(open_copies, stored, folder):
    first, second, third = (stored(SIZE, seed) for seed in (1, 2, 3))
    mine, theirs = open_copies(TWO), open_copies(TWO)
    with theirs.hold(first, go_on), mine.hold(second, go_on):
        with pytest.raises(StorageUnavailable, match="in use; try again"):
            mine.hold(third, go_on)
        assert here(folder, first, second, third) == [True, True, False]

    with mine.hold(third, go_on):
        assert here(folder, first, second, third) == [False, True, True]


def test_what_several_use_is_in_use_until_the_last_one_is_done(open_copies, stored, folder):
    first, second, third = (stored(SIZE, seed) for seed in (1, 2, 3))
    copies = open_copies(TWO)
    fetched(copies, first, second)
    held = copies.hold(first, go_on)
    with copies.hold(first, go_on):
        pass

    with copies.hold(third, go_on):
        assert here(folder, first, second, third) == [True, False, True]
    with held:
        pass


def test_a_fetch_that_was_left_goes_before_whole_copies(open_copies, stored, folder):
    first, second = (stored(SIZE, seed) for seed in (1, 2))
    fetched(open_copies(TWO), first)
    left = folder / f"sha256-{'a' * 64}.part"
    left.write_bytes(bytes(SIZE + MARK_BYTES))

    with open_copies(TWO).hold(second, go_on):
        assert here(folder, first, second) == [True, True]
    assert not left.exists()


def test_what_can_never_fit_is_refused_before_anything_is_fetched(open_copies, stored, bucket, folder):
    copies, blobs = open_copies(TWO), [stored(SIZE, seed) for seed in (1, 2, 3)]

    with pytest.raises(StorageFull, match=r"take 0\.4 MiB, and local copies may take 0\.3 MiB .* TONNAGE_CACHE_BYTES"):
        copies.check_fits(blobs)

    assert bucket.calls["get"] == 0
    assert list(folder.iterdir()) == []


def test_a_bound_that_a_single_copy_exceeds_is_not_exceeded(open_copies, stored, folder):
    with pytest.raises(StorageUnavailable, match="no room"):
        open_copies(SIZE - 1).hold(stored(SIZE), go_on)

    assert [path.name for path in folder.iterdir()] == ["room.lock"]


def test_tidying_takes_what_nobody_knows_or_comes_back_for(open_copies, stored, folder):
    known, unknown, held = (stored(SIZE, seed) for seed in (1, 2, 3))
    copies = open_copies()
    fetched(copies, known, unknown)
    old, new = folder / f"sha256-{'a' * 64}.part", folder / f"sha256-{'b' * 64}.part"
    for part in (old, new):
        part.write_bytes(b"begun")
    os.utime(old, (0, 0))
    (folder / "notes.txt").write_text("the operator's own")
    living = {known.digest, *(type(known.digest)("sha256", name * 64) for name in "ab")}

    with copies.hold(held, go_on):
        gone = CopyFolder(folder).tidy(lambda digests: living & set(digests))

    assert gone == 2
    assert here(folder, known, unknown, held) == [True, False, True]
    assert (old.exists(), new.exists(), (folder / "notes.txt").exists()) == (False, True, True)


def test_looking_how_far_fetches_are_locks_no_whole_copy(open_copies, stored, monkeypatch):
    copies = open_copies()
    fetched(copies, stored(SIZE))
    monkeypatch.setattr("storage.local_copies.folder.have_alone", lambda descriptor: pytest.fail("it was locked"))

    assert copies.under_way() == []


def test_tidying_waits_until_room_is_made(open_copies, stored, folder, monkeypatch):
    blob = stored(SIZE)
    fetched(open_copies(), blob)
    monkeypatch.setattr("storage.local_copies.folder._TURN_S", 0.0)

    with (folder / "room.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageUnavailable, match="another process makes room"):
            CopyFolder(folder).tidy(lambda digests: [])

    assert here(folder, blob) == [True]


def test_tidying_where_nothing_was_ever_copied(folder):
    assert CopyFolder(folder).tidy(lambda digests: digests) == 0


def test_a_file_in_the_making_goes_with_its_maker_or_in_the_end(tmp_path):
    with made_file(tmp_path) as path:
        path.write_bytes(b"made")
        assert tidy_made(tmp_path, older_than_s=-60) == 0
        assert path.read_bytes() == b"made"
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "made-0123").mkdir()
    assert tidy_made(tmp_path) == 0
    assert tidy_made(tmp_path, older_than_s=-60) == 1
    assert list(tmp_path.iterdir()) == []
