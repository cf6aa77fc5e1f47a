"""Blobs fetched over several connections at once: in order, once, within bounds, whatever one of them meets."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from registry.remotes import incoming, parts
from registry.remotes.errors import AnswerInvalid, ConnectionCut, Forbidden, NotFound
from registry.remotes.http import Outbound
from registry.remotes.incoming import Incoming
from registry.remotes.jobs import Cancelled, Job, started
from registry.remotes.window import Budget, Window
from storage.upload import Upload
from tests.faulty_registry import Fault, faulty_registry
from tests.registry.fetching import END_S, MIB, Fetching, fetching, threads_at_parts
from tests.server import wait_for

SIZE = 24 * MIB
PART = MIB  # of blobs of that size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetching]:
    with fetching(tmp_path_factory.mktemp("parts")) as it:
        yield it


@pytest.fixture
def at(folder: Fetching) -> Iterator[Fetching]:
    """A registry as new, a repository of its own, and afterwards no thread."""
    with faulty_registry() as registry:
        yield Fetching(registry, folder.store)
    assert threads_at_parts() == []


def test_parts_come_over_several_connections_and_each_byte_once(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.holds_until = 2

    at.run(blob)

    assert at.fetched(blob) == data
    assert not at.registry.was_held_in_vain
    assert 2 <= at.registry.most_at_once <= 4
    assert at.registry.sent_bytes == SIZE


def test_a_small_blob_takes_one_request(at: Fetching) -> None:
    blob, data = at.offer(3 * MIB)

    at.run(blob)

    assert at.fetched(blob) == data
    assert ["Range" in request.headers for request in at.registry.requests] == [False]


def test_a_server_that_knows_no_ranges_is_asked_once(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.knows_ranges = False

    at.run(blob)

    assert at.fetched(blob) == data
    assert at.registry.count("GET") == 1
    assert at.registry.sent_bytes == SIZE


def test_a_server_that_forgets_how_ranges_work_still_gives_all(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    whole = {"Content-Length": str(SIZE)}
    at.registry.faults.append(Fault("GET", "blobs", status=200, headers=whole, body=data, skip=6, times=99))

    at.run(blob)

    assert at.fetched(blob) == data


@pytest.mark.parametrize("after", [0, 1, 300_000, PART - 1])
def test_a_part_that_is_cut_goes_on_where_it_stopped(at: Fetching, after: int) -> None:
    blob, data = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", cut_after=after, skip=2, times=5))

    at.run(blob)

    assert at.fetched(blob) == data
    assert at.registry.sent_bytes < 1.05 * SIZE


def test_a_registry_that_refuses_a_second_connection_is_asked_over_one(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.limit_at_once = 1

    at.run(blob)

    assert at.fetched(blob) == data
    assert at.registry.sent_bytes < 1.05 * SIZE


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Range": f"bytes 7-8/{SIZE}"}, b"xy"),
        ({"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}, b"x" * 2 * PART),
        ({}, b"xy"),
    ],
    ids=["another", "more than was asked for", "none"],
)
def test_an_answer_with_another_range_ends_it_and_what_came_before_is_kept(
    at: Fetching, headers: dict[str, str], body: bytes
) -> None:
    blob, data = at.offer(SIZE)
    lie = Fault("GET", "blobs", status=206, headers=headers, body=body, range=f"bytes={5 * PART}-", times=1)
    at.registry.faults.append(lie)

    with pytest.raises(AnswerInvalid):
        at.run(blob)

    kept = at.offset(blob)
    assert 0 < kept <= 5 * PART
    at.registry.sent_bytes = 0
    at.run(blob)
    assert at.fetched(blob) == data
    assert at.registry.sent_bytes == SIZE - kept


def test_an_error_at_one_connection_ends_all_of_them(at: Fetching) -> None:
    blob, _ = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", status=404, range=f"bytes={2 * PART}-"))
    at.registry.faults.append(Fault("GET", "blobs", stall_after=1000, skip=1, times=99))

    with pytest.raises(NotFound):
        at.run(blob)

    assert threads_at_parts() == []


def test_a_transfer_that_is_given_up_leaves_no_thread(at: Fetching) -> None:
    blob, _ = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", stall_after=1000, times=99))
    job = at.job(blob)
    with started(job):
        wait_for(lambda: at.registry.most_at_once >= 3, 20, "several connections to be under way")

    assert job.wait(END_S)
    assert threads_at_parts() == []
    with pytest.raises(Cancelled):
        job.result()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_lapses_on_the_way_is_asked_for_again(at: Fetching, status: int) -> None:
    with faulty_registry() as store:
        at.registry.blob_location = store.url
        blob, data = at.offer(SIZE)
        store.add(data)
        store.faults.append(Fault("GET", "cdn", status=status, skip=5, times=2))

        at.run(blob)

        assert at.fetched(blob) == data
        assert store.sent_bytes == SIZE
        assert at.registry.count("GET") == store.count("GET")  # each time from the registry's own URL


def test_a_registry_that_refuses_on_the_way_is_believed(at: Fetching) -> None:
    blob, _ = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", status=403, skip=5))

    with pytest.raises(Forbidden):
        at.run(blob)

    assert at.registry.faults[0].times == 0


class CountedBudget(Budget):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.taken = self.most = 0

    def take(self, size: int) -> bool:
        was_room = super().take(size)
        self.taken += size if was_room else 0
        self.most = max(self.most, self.taken)
        return was_room

    def give_back(self, size: int) -> None:
        self.taken -= size
        super().give_back(size)


@pytest.mark.parametrize("room", [0, PART, 3 * PART])
def test_what_is_read_ahead_keeps_within_the_budget(at: Fetching, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = CountedBudget(room)
    monkeypatch.setattr(parts.Parts.__init__, "__kwdefaults__", {"first_pause_s": 0.01, "budget": budget})
    blob, data = at.offer(SIZE)

    at.run(blob)

    assert at.fetched(blob) == data
    assert budget.most == room
    assert budget.taken == 0


def test_a_window_of_parts_is_bounded_and_comes_out_in_order() -> None:
    budget = CountedBudget(100)
    window = Window(0, 40, 4, budget)
    assert window.join()
    assert not window.join()  # before the server has shown that it knows ranges
    begun = [window.claim()]
    assert window.join(is_answered=True)
    begun += [window.claim() for _ in range(5)]

    for part in reversed(begun):
        assert part is not None
        assert window.put(part, bytes([part.position]) * 4)

    assert budget.most == 20
    assert b"".join(window.take(3, 0) for _ in range(16)) == bytes(at // 4 * 4 for at in range(24))
    assert window.take(3, 0) == b""
    window.close()
    assert budget.taken == 0


def test_what_came_in_order_is_given_before_the_error() -> None:
    window = Window(0, 8, 4, Budget(100))
    window.join()
    part = window.claim()
    assert part is not None
    window.put(part, b"abc")
    window.fail(ConnectionCut("cut"))

    assert window.take(100, 0) == b"abc"
    with pytest.raises(ConnectionCut):
        window.take(100, 0)


def test_the_first_bytes_are_there_at_once_and_are_saved_while_no_more_come(
    at: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "IDLE_S", 0.01)
    blob, data = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", stall_after=1000, range="bytes=0-", times=1))
    with started(at.job(blob)) as job:
        wait_for(lambda: at.offset(blob) == 1000, 20, "what came to be durable")
        assert job.completed == 1000

        at.registry.silence.set()  # the connection is dropped: the part goes on from there

        assert job.wait(END_S)
        job.result()
    assert at.fetched(blob) == data
    assert at.registry.sent_bytes == SIZE


def test_after_the_first_piece_blocks_are_whole_where_bytes_come_fast(
    at: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "BLOCK_S", 30.0)
    blob, data = at.offer(SIZE)
    job, session = Job[None](lambda job: None), cast(Upload, SimpleNamespace(offset=0))

    with Incoming(at.remote(Outbound()), blob, session, job) as stream:
        blocks = list(iter(lambda: stream.read(MIB), b""))

    assert b"".join(blocks) == data
    assert {len(block) for block in blocks[1:-1]} == {MIB}
    assert job.completed == SIZE
