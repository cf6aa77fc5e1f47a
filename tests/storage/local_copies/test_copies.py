"""Copies hold exactly the bytes of the blob, however they came, and nothing else is trusted."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import BlobDamaged, KeyUnknown, StorageUnavailable
from storage.local_copies.partial import MARK_BYTES
from tests.storage.local_copies.conftest import PIECE, go_on
from tests.waiting import wait_for

SIZE = 7 * PIECE + 11


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, SIZE])
def test_a_copy_has_the_bytes_of_the_blob(open_copies, stored, bucket, folder, size, algorithm):
    blob = stored(size, algorithm=algorithm)

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]

    assert {path.name for path in folder.iterdir()} == {copy.path.name, "room.lock"}
    assert bucket.calls["get"] == -(-size // PIECE)


def test_a_copy_that_is_there_costs_the_bucket_nothing(open_copies, stored, bucket):
    blob = stored(SIZE)
    with open_copies().hold(blob, go_on):
        pass
    bucket.objects.clear()

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.stat().st_size == SIZE


def test_any_number_of_requests_share_one_fetch(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies()
    everybody = threading.Barrier(8)

    def ask(_: int) -> bytes:
        everybody.wait(30)
        with copies.hold(blob, go_on) as copy:
            return copy.path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        read = set(pool.map(ask, range(8)))

    assert read == {bucket.objects[f"objects/{blob.key}"]}
    assert bucket.calls["get"] == 8


def test_answers_that_break_off_are_asked_for_again(open_copies, stored, bucket):
    blob = stored(SIZE)
    bucket.cut_after = 10_000

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_a_bucket_that_sends_nothing_is_given_up(open_copies, stored, bucket, folder):
    blob = stored(SIZE)
    bucket.cut_after = 0

    with pytest.raises(StorageUnavailable, match="breaks off"):
        open_copies().hold(blob, go_on)

    assert not [path for path in folder.iterdir() if path.suffix == "" and path.name != "room.lock"]


def test_bytes_of_another_digest_are_kept_by_nobody_until_they_are_whole_again(open_copies, stored, bucket, folder):
    blob, copies = stored(SIZE), open_copies()
    whole = bucket.objects[f"objects/{blob.key}"]
    bucket.objects[f"objects/{blob.key}"] = whole[:-1] + bytes([whole[-1] ^ 1])

    with pytest.raises(BlobDamaged, match=str(blob.digest)):
        copies.hold(blob, go_on)
    assert [path.name for path in folder.iterdir()] == ["room.lock"]

    bucket.objects[f"objects/{blob.key}"] = whole
    with copies.hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == whole


def test_a_copy_that_was_cut_is_not_trusted(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies()
    with copies.hold(blob, go_on) as copy:
        pass
    os.truncate(copy.path, SIZE - 1)

    assert copies.held(blob) is None
    with copies.hold(blob, go_on) as again:
        assert again.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_a_copy_that_was_removed_by_hand_while_it_was_held_comes_again(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies()
    with copies.hold(blob, go_on) as copy:
        copy.path.unlink()
        with copies.hold(blob, go_on) as again:
            assert again.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_a_fetch_that_broke_off_goes_on_where_it_was(open_copies, stored, bucket, monkeypatch):
    blob = stored(SIZE)
    broken_off(bucket, blob, open_copies, after=4 * PIECE, monkeypatch=monkeypatch)
    before = bucket.calls["get"]

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]

    assert bucket.calls["get"] - before == 4


def test_what_a_crash_of_the_machine_left_wrong_is_fetched_anew(open_copies, stored, bucket, folder, monkeypatch):
    blob = stored(SIZE)
    broken_off(bucket, blob, open_copies, after=4 * PIECE, monkeypatch=monkeypatch)
    (part,) = folder.glob("*.part")
    with part.open("r+b") as file:
        file.write(bytes(100))  # whole blocks may be zeros, while the mark was kept

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_a_process_that_died_just_before_the_copy_had_its_name_leaves_nothing_to_fetch(
    open_copies, stored, bucket, folder
):
    blob = stored(SIZE)
    folder.mkdir()
    data = bucket.objects.pop(f"objects/{blob.key}")
    (folder / f"sha256-{blob.digest.encoded}.part").write_bytes(data)

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == data


@pytest.mark.parametrize("mark", [b"\xff" * MARK_BYTES, (SIZE + 1).to_bytes(MARK_BYTES, "big"), b""])
def test_a_mark_that_makes_no_sense_counts_for_nothing(open_copies, stored, bucket, folder, mark):
    blob = stored(SIZE)
    folder.mkdir()
    (folder / f"sha256-{blob.digest.encoded}.part").write_bytes(bytes(SIZE) + mark)

    with open_copies().hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_a_client_that_leaves_does_not_end_the_fetch(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies()
    bucket.shut(2 * PIECE)

    with pytest.raises(Left):
        copies.hold(blob, leave)
    bucket.gate.set()

    wait_for(lambda: copies.held(blob) is not None, 20, "the fetch to end")


def test_a_fetch_that_stands_still_is_an_error_and_what_came_is_kept(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies(stall_s=0.2)
    bucket.shut(4 * PIECE)

    with pytest.raises(StorageUnavailable, match=r"no byte of the weights for 0\.2 s"):
        copies.hold(blob, go_on)

    bucket.gate.set()
    wait_for(lambda: not copies.under_way(), 20, "its connections to end")
    with copies.hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_so_many_may_wait_and_no_more(open_copies, stored, bucket):
    copies = open_copies(waiting=1)
    bucket.shut()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(copies.hold, stored(SIZE, 1), go_on)
        wait_for(lambda: bool(copies.under_way()), 20, "the first to wait")

        with pytest.raises(StorageUnavailable, match="as many requests wait"):
            copies.hold(stored(SIZE, 2), go_on)

        bucket.gate.set()
        with first.result(20) as copy:
            assert copy.path.stat().st_size == SIZE


def test_what_was_given_up_before_its_turn_is_never_begun(open_copies, stored, bucket):
    copies, blobs, seen = open_copies(), [stored(SIZE, seed) for seed in range(5)], bucket.objects
    bucket.shut()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(copies.hold, blob, go_on) for blob in blobs[:4]]
        wait_for(lambda: len(copies.under_way()) == 4, 20, "as many fetches as may run at once")
        before = fetching_threads()
        with pytest.raises(Left):
            copies.hold(blobs[4], leave)

        wait_for(lambda: fetching_threads() <= before, 20, "the thread of the fifth to end")

        bucket.gate.set()
        for each in asked:
            with each.result(20) as copy:
                assert copy.path.read_bytes() in seen.values()
    assert copies.held(blobs[4]) is None


def test_a_thread_that_cannot_be_started_is_an_error_of_this_request_alone(open_copies, stored, bucket, monkeypatch):
    blob, copies = stored(SIZE), open_copies()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        with pytest.raises(RuntimeError, match="new thread"):
            copies.hold(blob, go_on)

    with copies.hold(blob, go_on) as copy:
        assert copy.path.read_bytes() == bucket.objects[f"objects/{blob.key}"]


def test_too_few_threads_end_a_fetch_after_those_that_began(open_copies, stored, monkeypatch):
    blob, start, begun = stored(SIZE), threading.Thread.start, []

    def start_two(thread):
        if thread.name.startswith("weights-"):
            begun.append(thread)
            if len(begun) == 3:
                no_more_threads(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)

    with pytest.raises(StorageUnavailable, match="see the server's log"):
        open_copies().hold(blob, go_on)

    assert not any(thread.is_alive() for thread in begun)


def test_bytes_that_did_not_reach_the_disk_are_not_gone_on_with(open_copies, stored, folder, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", disk_fails)

    with pytest.raises(StorageUnavailable, match="Input/output error"):
        open_copies().hold(stored(SIZE), go_on)

    assert [path.name for path in folder.iterdir()] == ["room.lock"]


def test_a_folder_that_takes_no_locks_costs_no_descriptors(open_copies, stored, monkeypatch):
    blob, copies = stored(SIZE), open_copies()
    with copies.hold(blob, go_on) as copy:
        pass
    monkeypatch.setattr("storage.local_copies.locks.fcntl.flock", disk_fails)

    with pytest.raises(StorageUnavailable, match="takes no locks"):
        copies.held(blob)

    assert [each for each in Path("/proc/self/fd").iterdir() if os.path.realpath(each) == str(copy.path)] == []


def test_whoever_looks_sees_how_far_it_is(open_copies, stored, bucket):
    blob, copies = stored(SIZE), open_copies()
    bucket.shut(3 * PIECE)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(copies.hold, blob, go_on)

        def seen() -> list[tuple[object, int, int]]:
            return [(each.digest, each.completed, each.total) for each in open_copies().under_way()]

        wait_for(lambda: seen() == [(blob.digest, 3 * PIECE, SIZE)], 20, "three pieces")
        bucket.gate.set()
        with asked.result(20):
            assert seen() == []


def test_an_object_that_is_gone_is_said_to_be(open_copies, stored, bucket):
    blob = stored(SIZE)
    bucket.objects.clear()

    with pytest.raises(KeyUnknown):
        open_copies().hold(blob, go_on)


class Left(Exception):
    """The client has."""


def leave() -> None:
    raise Left


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def disk_fails(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def fetching_threads() -> int:
    return sum(thread.name == "fetch" for thread in threading.enumerate())


def broken_off(bucket, blob, open_copies, *, after, monkeypatch):
    """A fetch that ended when the bucket fell silent."""
    get = type(bucket).get

    def fail(name, *, start=0, size=None):
        if start >= after:
            raise StorageUnavailable("the object store does not answer")
        return get(bucket, name, start=start, size=size)

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "get", fail)
        patch.setattr("storage.local_copies.download.CONNECTIONS", 1)
        with pytest.raises(StorageUnavailable):
            open_copies().hold(blob, go_on)
