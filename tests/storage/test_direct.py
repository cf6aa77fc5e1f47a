"""Sessions whose parts go straight to the object store: which part may go where, and what a commit believes."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass

import pytest

from storage import direct
from storage.chunks import ChunkRange
from storage.claims import claimed
from storage.db import Database
from storage.digest import Digest
from storage.direct import Plan
from storage.drivers.objects.driver import ObjectDriver
from storage.errors import ChunkOutOfOrder, DigestInvalid, KeyUnknown, SizeInvalid, StorageUnavailable, UploadUnknown
from storage.reference import RepositoryName
from storage.store import Store
from storage.upload import Upload
from tests.storage.objects.counted import CountingBucket

PART = 1000
DATA = os.urandom(2 * PART + 345)
DIGEST = Digest.of(DATA)
CHUNKS = [ChunkRange(0, 999), ChunkRange(1000, 1999), ChunkRange(2000, 2344)]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@dataclass
class Session:
    """A session, and the object store as a client sees it that was given addresses."""

    store: Store
    bucket: CountingBucket
    name: RepositoryName
    id: str

    @property
    def upload(self) -> Upload:
        """As any node has it."""
        return self.store.uploads.resume(self.name, self.id)

    def address(self, chunk: ChunkRange, *, may_begin: bool = True) -> str | None:
        found = self.store.direct.address(self.id, chunk, may_begin=may_begin)
        return found.url if found is not None else None

    def put(self, address: str | None, data: bytes) -> None:
        """What whoever has the address can do."""
        assert address is not None
        name, _, rest = address.removeprefix("memory:").partition("?")
        upload, number, size = rest.split("&")
        self.bucket.put_part(name, upload, int(number), data, int(size))

    def send(self, *chunks: ChunkRange, data: bytes = DATA) -> list[str | None]:
        addresses = [self.address(chunk) for chunk in chunks]
        for chunk, address in zip(chunks, addresses, strict=True):
            self.put(address, data[chunk.first : chunk.last + 1])
        return addresses

    def stored(self) -> bytes:
        with self.store.blobs.open(self.name, DIGEST) as reader:
            return reader.read()


@pytest.fixture
def session(database: Database, name: RepositoryName, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(direct, "LEAST_PART", 100)
    bucket = CountingBucket()
    store = Store(database, ObjectDriver(bucket))
    return Session(store, bucket, name, store.uploads.start(name).id)


def test_parts_become_the_blob_that_was_announced(session):
    session.send(*CHUNKS)

    blob = session.upload.commit(DIGEST)

    assert (blob.size, session.stored()) == (len(DATA), DATA)
    assert session.bucket.begun == {}
    assert list(session.bucket.objects) == [f"objects/{blob.key}"]
    assert session.store.uploads.finished(session.name, session.id) == DIGEST


def test_an_address_is_worth_nothing_once_the_blob_is_there(session):
    addresses = session.send(*CHUNKS)
    session.upload.commit(DIGEST)

    for chunk, address in zip(CHUNKS, addresses, strict=True):
        with pytest.raises(KeyUnknown):
            session.put(address, b"x" * chunk.size)

    assert session.stored() == DATA


def test_what_a_part_was_before_the_commit_is_not_believed(session):
    addresses = session.send(*CHUNKS)
    session.put(addresses[1], b"x" * PART)

    with pytest.raises(DigestInvalid) as refused:
        session.upload.commit(DIGEST)

    assert refused.value.detail == {"digest": str(DIGEST)}, "what the bytes are is nobody's business"
    assert (session.bucket.objects, session.bucket.begun) == ({}, {})
    with pytest.raises(UploadUnknown):
        _ = session.upload


def test_a_read_that_breaks_off_is_tried_again(session, monkeypatch):
    session.send(*CHUNKS)
    get, broken = session.bucket.get, [2, 1]

    def get_or_break_off(name: str, *, start: int = 0, size: int | None = None):
        return get(name, start=start, size=size and size - (broken.pop() if broken else 0))

    monkeypatch.setattr(session.bucket, "get", get_or_break_off)
    session.upload.commit(DIGEST)

    assert (session.stored(), broken) == (DATA, [])


def test_a_part_that_changes_while_the_commit_begins_spoils_nothing(session, monkeypatch):
    addresses, found = session.send(*CHUNKS), session.bucket.parts

    def parts(name: str, upload: str):
        listed = list(found(name, upload))
        session.put(addresses[1], b"x" * PART)
        return iter(listed)

    monkeypatch.setattr(session.bucket, "parts", parts)

    with pytest.raises(StorageUnavailable):
        session.upload.commit(DIGEST)

    monkeypatch.undo()
    session.put(addresses[1], DATA[1000:2000])
    session.upload.commit(DIGEST)
    assert session.stored() == DATA


def test_parts_come_in_any_order_and_again(session):
    addresses = [session.address(chunk) for chunk in CHUNKS]
    again = [session.address(chunk) for chunk in CHUNKS]
    for at in (2, 0, 1, 0):
        session.put((again if at else addresses)[at], DATA[CHUNKS[at].first : CHUNKS[at].last + 1])

    assert session.upload.commit(DIGEST).size == len(DATA)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named_and_may_still_come(session, missing):
    addresses = [session.address(chunk) for chunk in CHUNKS]
    for at in {0, 1, 2} - {missing}:
        session.put(addresses[at], DATA[CHUNKS[at].first : CHUNKS[at].last + 1])

    with pytest.raises(SizeInvalid) as refused:
        session.upload.commit(DIGEST)
    assert refused.value.detail == {"parts": [missing + 1]}

    session.put(addresses[missing], DATA[CHUNKS[missing].first : CHUNKS[missing].last + 1])
    assert session.upload.commit(DIGEST).size == len(DATA)


def test_a_commit_of_another_algorithm_reads_the_bytes_by_it(session):
    session.send(*CHUNKS)
    digest = Digest.of(DATA, "sha512")

    session.upload.commit(digest)

    assert session.store.blobs.stat(session.name, digest).size == len(DATA)


def test_a_commit_goes_on_where_one_before_it_died(session, monkeypatch):
    session.send(*CHUNKS)
    monkeypatch.setattr(session.bucket, "get", lambda *_args, **_named: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        session.upload.commit(DIGEST)
    monkeypatch.undo()

    session.upload.commit(DIGEST)

    assert session.stored() == DATA


def test_nothing_is_added_to_parts_that_a_commit_closed_before_it_died(session, monkeypatch):
    session.send(*CHUNKS[:2])
    monkeypatch.setattr(session.bucket, "get", lambda *_args, **_named: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        session.upload.commit(DIGEST)
    monkeypatch.undo()

    with pytest.raises(ChunkOutOfOrder, match="commit it"):
        session.address(CHUNKS[2])

    assert session.upload.commit(Digest.of(DATA[:2000])).size == 2000


def test_a_part_may_be_sent_again_where_a_commit_could_not_close_them(session, monkeypatch):
    first = Digest.of(DATA[:2000])
    session.send(*CHUNKS[:2])
    refuse = StorageUnavailable("the object store does not answer")
    monkeypatch.setattr(session.bucket, "complete", lambda *_args: (_ for _ in ()).throw(refuse))
    with pytest.raises(StorageUnavailable):
        session.upload.commit(first)
    monkeypatch.undo()

    session.send(CHUNKS[1])
    with pytest.raises(ChunkOutOfOrder, match="commit it"):  # the closing may still be under way
        session.address(CHUNKS[2])

    assert session.upload.commit(first).size == 2000


def test_a_plan_is_read_by_the_version_before_and_from_the_next_one():
    told = Plan("id", PART, size=PART).to_json()

    assert set(told) == {"upload", "part_bytes", "size", "sha256"}
    assert Plan.from_json(told | {"later": True}) == Plan("id", PART, size=PART)
    assert Plan.from_json(Plan("id", PART, is_closing=True).to_json()).is_closing


def test_a_completing_whose_answer_was_lost_is_taken_up_again(session):
    session.send(*CHUNKS)
    session.bucket.answers_lost = 1
    with pytest.raises(StorageUnavailable):
        session.upload.commit(DIGEST)

    assert session.upload.commit(DIGEST).size == len(DATA)


@pytest.mark.parametrize(
    "before",
    [
        [ChunkRange(0, 98)],  # shorter than a part may be
        [ChunkRange(1000, 1999)],  # not the first
    ],
)
def test_a_session_that_does_not_begin_with_a_part_goes_through_us(session, before):
    assert [session.address(chunk) for chunk in before] == [None]

    session.upload.append(io.BytesIO(DATA))
    assert session.address(ChunkRange(0, 999)) is None
    session.upload.commit(DIGEST)
    assert session.stored() == DATA


def test_no_session_is_made_a_direct_one_unasked(session):
    assert session.address(CHUNKS[0], may_begin=False) is None
    assert session.bucket.begun == {}


def test_a_session_that_was_written_to_in_vain_stays_with_us(session):
    with pytest.raises(OSError, match="cut"):
        session.upload.append(_Broken())  # type: ignore[arg-type]

    assert session.address(CHUNKS[0]) is None


class _Broken:
    def read(self, size: int = -1) -> bytes:
        raise OSError("cut")


def test_bytes_that_come_to_us_are_refused_where_the_others_do_not(session):
    session.send(CHUNKS[0])

    with pytest.raises(ChunkOutOfOrder, match="object store"):
        session.upload.append(io.BytesIO(DATA[1000:]))
    with pytest.raises(ChunkOutOfOrder, match="object store"):
        session.upload.complete(io.BytesIO(DATA[1000:]), DIGEST)

    session.send(*CHUNKS[1:])
    assert session.upload.commit(DIGEST).size == len(DATA)


@pytest.mark.parametrize(
    ("given", "next_one", "number"),
    [
        ([(0, 999)], (0, 999), 1),
        ([(0, 999)], (1000, 1999), 2),
        ([(0, 999)], (1000, 1500), 2),
        ([(0, 999), (1000, 1500)], (1000, 1500), 2),
        ([(0, 999), (1000, 1500)], (0, 999), 1),
        ([(0, 999)], (2000, 2999), None),  # a gap
        ([(0, 999)], (500, 1499), None),  # an overlap
        ([(0, 999)], (1000, 2500), None),  # longer than the others
        ([(0, 999)], (0, 500), None),  # shorter, and not the last
        ([(0, 999), (1000, 1500)], (1000, 1999), None),  # the last one, grown
        ([(0, 999), (1000, 1500)], (1000, 1400), None),  # and shrunk
        ([(0, 999), (1000, 1500)], (1501, 1999), None),  # something after it
    ],
)
def test_parts_are_equal_but_for_the_last_and_follow_each_other(given, next_one, number):
    plan = Plan("id", PART)
    for chunk in given:
        plan = plan.reaching(ChunkRange(*chunk))

    if number is None:
        with pytest.raises(ChunkOutOfOrder):
            plan.number(ChunkRange(*next_one))
    else:
        assert plan.number(ChunkRange(*next_one)) == number


def test_no_more_parts_are_begun_than_a_store_takes():
    with pytest.raises(ChunkOutOfOrder, match="10000 parts"):
        Plan("id", PART, size=10_000 * PART).number(ChunkRange(10_000 * PART, 10_000 * PART + 999))


def test_a_whole_blob_is_not_read_where_the_store_has_its_sum(session):
    address = session.store.direct.whole_address(session.id, DIGEST, len(DATA))
    session.put(address.url, DATA)

    session.upload.commit(DIGEST)

    assert address.headers == {"sum": DIGEST.encoded}
    assert session.bucket.calls["get"] == 0
    assert session.stored() == DATA


def test_a_whole_blob_is_read_where_the_store_has_no_sum(session):
    session.bucket.has_sums = False
    address = session.store.direct.whole_address(session.id, DIGEST, len(DATA))
    session.put(address.url, b"x" * len(DATA))

    with pytest.raises(DigestInvalid):
        session.upload.commit(DIGEST)

    assert address.headers == {}
    assert session.bucket.objects == {}


def test_a_sum_that_is_not_the_digest_proves_nothing(session):
    other = os.urandom(len(DATA))
    address = session.store.direct.whole_address(session.id, Digest.of(other), len(DATA))
    session.put(address.url, other)

    with pytest.raises(DigestInvalid):
        session.upload.commit(DIGEST)


@pytest.mark.parametrize("size", [0, 99, 5 * 2**30 + 1])
def test_a_blob_that_is_no_part_is_not_taken_whole(session, size):
    assert session.store.direct.whole_address(session.id, DIGEST, size) is None


def test_a_cancelled_session_leaves_nothing(session):
    session.send(*CHUNKS)

    session.upload.cancel()

    assert (session.bucket.objects, session.bucket.begun) == ({}, {})


def test_an_expired_session_leaves_nothing(session):
    addresses = session.send(CHUNKS[0])

    assert session.store.uploads.expire(idle_s=-1) == 1

    assert (session.bucket.objects, session.bucket.begun) == ({}, {})
    with pytest.raises(KeyUnknown):
        session.put(addresses[0], DATA[:PART])


def test_the_same_blob_twice_is_kept_once(session):
    session.send(*CHUNKS)
    twin = Session(session.store, session.bucket, session.name, session.store.uploads.start(session.name).id)
    twin.send(*CHUNKS)

    kept = session.upload.commit(DIGEST)

    assert twin.upload.commit(DIGEST) == kept
    assert list(session.bucket.objects) == [f"objects/{kept.key}"]


def test_a_long_commit_holds_the_session(session, monkeypatch):
    session.send(*CHUNKS)
    monkeypatch.setattr("storage.claims._BEAT_S", 0.01)
    monkeypatch.setattr("storage.claims.RENEW_S", 0.0)
    complete, held, renewed = session.bucket.complete, threading.Event(), []

    def slowly(*args: object) -> None:
        assert held.wait(10)
        complete(*args)

    def save(self, **values: object) -> None:
        renewed.append(values)
        if len(renewed) == 3:
            held.set()

    monkeypatch.setattr(session.bucket, "complete", slowly)
    monkeypatch.setattr("storage.claims.Claim.save", save)
    with claimed(session.store.database, session.id) as claim:
        assert direct.settle(ObjectDriver(session.bucket), claim, DIGEST) == len(DATA)

    assert len(renewed) >= 3


def test_drivers_without_a_store_of_their_own_give_no_address(store: Store, name):
    upload = store.uploads.start(name)

    assert not store.direct.is_possible
    assert store.direct.address(upload.id, ChunkRange(0, 2**23), may_begin=True) is None
    assert store.direct.whole_address(upload.id, DIGEST, 2**23) is None
