"""Blobs that came whole and wrong: what is right stays, what is wrong comes again, and nothing wrong is ever a blob."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest

from registry.remotes.errors import DigestMismatch
from registry.remotes.jobs import Cancelled, Job
from registry.remotes.repair import repair_turn
from tests.backends import OF_FILES
from tests.faulty_registry import Fault, faulty_registry
from tests.registry.fetching import MIB, Fetching, fetching

SIZE = 12 * MIB
CHUNK = 3 * MIB + 17  # the last one is shorter
SMALL = MIB


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetching]:
    with fetching(tmp_path_factory.mktemp("repair")) as it:
        yield it


@pytest.fixture
def at(shared: Fetching) -> Iterator[Fetching]:
    with faulty_registry(sum_bytes=CHUNK) as registry:
        yield Fetching(registry, shared.store)


@OF_FILES
@pytest.mark.parametrize("byte", [0, 5 * MIB, SIZE - 1])
def test_a_flipped_bit_costs_one_chunk(at: Fetching, byte: int) -> None:
    blob, data = at.offer(SIZE)
    flips = [Fault("GET", "blobs", flip=byte, times=1, range=f"bytes={byte // MIB * MIB}-")]
    at.registry.faults += flips

    at.run(blob)

    assert at.fetched(blob) == data
    assert flips[0].times == 0
    assert at.registry.sent_bytes <= SIZE + CHUNK
    assert at.session(blob) is None


@OF_FILES
def test_what_an_earlier_attempt_left_wrong_is_put_right(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    wrong = bytes(each ^ 1 for each in data[: 2 * MIB]) + data[2 * MIB : 6 * MIB]
    earlier = at.store.uploads.start(at.name, algorithm="sha256", opened_with=f"pull:{blob.digest}"[:64])
    earlier.append(BytesIO(wrong))

    at.run(blob)

    assert at.fetched(blob) == data
    assert at.registry.sent_bytes < SIZE


@OF_FILES
def test_a_chunk_that_comes_wrong_again_is_asked_for_again(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", flip=0, times=2, range="bytes=0-"))

    at.run(blob)

    assert at.fetched(blob) == data


def test_a_registry_that_never_sends_what_its_sums_say_is_given_up(at: Fetching) -> None:
    blob, _ = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", flip=0, times=99, range="bytes=0-"))

    with pytest.raises(DigestMismatch, match="file must be downloaded again"):
        at.run(blob)

    assert at.fetched(blob) is None
    assert at.session(blob) is None


def test_sums_of_the_wrong_bytes_help_nobody(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.blobs[str(blob.digest)] = data[:-1] + bytes([data[-1] ^ 1])

    with pytest.raises(DigestMismatch):
        at.run(blob)

    assert at.fetched(blob) is None
    assert at.session(blob) is None


ZEROS = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "sums",
    [
        b"",
        b"<html>no</html>",
        b"x" * 10_000,
        b"%s 0-9\n" % ZEROS.encode(),
        b"%s 1-%d\n" % (ZEROS.encode(), SMALL - 1),
        b"%s 0-%d\n" % (ZEROS.encode(), SMALL),
        b"%s 5-0\n" % ZEROS.encode(),
        b"md5:00 0-%d\n" % (SMALL - 1),
        b"%s 0-99999999999999999\n" % ZEROS.encode(),
        b"".join(b"%s %d-%d\n" % (ZEROS.encode(), each, each) for each in range(70_000)),
    ],
    ids=["none", "page", "no end", "too few", "late", "too many", "backwards", "no digest", "too large", "too short"],
)
def test_what_is_no_list_of_sums_is_as_none(at: Fetching, sums: bytes) -> None:
    at.registry.sums = sums
    blob, _ = at.offer(SMALL)
    at.registry.faults.append(Fault("GET", "blobs", flip=0))

    with pytest.raises(DigestMismatch):
        at.run(blob)

    assert at.registry.count("GET", "chunksums") == 1
    assert at.fetched(blob) is None


@OF_FILES
def test_sums_are_asked_for_again_where_the_registry_is_busy(at: Fetching) -> None:
    blob, data = at.offer(SIZE)
    at.registry.faults.append(Fault("GET", "blobs", flip=0, range="bytes=0-"))
    at.registry.faults.append(Fault("GET", "chunksums", status=503, headers={"Retry-After": "0"}, times=2))

    at.run(blob)

    assert at.fetched(blob) == data


def test_a_chunk_that_is_too_much_to_keep_is_not_repaired(at: Fetching) -> None:
    blob, _ = at.offer(17 * MIB)
    at.registry.sum_bytes = 17 * MIB
    at.registry.faults.append(Fault("GET", "blobs", flip=0, range="bytes=0-"))

    with pytest.raises(DigestMismatch):
        at.run(blob)


def test_one_blob_is_repaired_at_a_time() -> None:
    job = Job[None](lambda job: None)
    with repair_turn(job) as first, repair_turn(job, patience_s=0) as second:
        assert (first, second) == (True, False)

    with repair_turn(job, patience_s=0) as next_one:
        assert next_one


def test_who_waits_for_a_turn_and_is_given_up_waits_no_longer() -> None:
    given_up = Job[None](lambda job: None)
    given_up.cancel()

    with repair_turn(Job(lambda job: None)), pytest.raises(Cancelled), repair_turn(given_up):
        pytest.fail("it is not its turn")
