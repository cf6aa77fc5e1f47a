"""Uploads of a hundred gibibytes and more, in parts that are scaled down."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.objects.names import OBJECTS
from storage.errors import StagedBusy
from tests.storage.objects.counted import CountingBucket, scale_parts

KEY, MOVED = "blobs/ab/abc", "blobs/ab/def"
SCALE = 2**16  # a block has 128 bytes, a hundred gibibytes are 1.6 million
HUNDRED_GIB = 100 * 2**30 // SCALE


class Row:
    def __init__(self, handle: str) -> None:
        self.handle = handle

    def __call__(self, handle: str | None = None, /) -> None:
        self.handle = self.handle if handle is None else handle


def test_a_hundred_gibibytes_are_uploaded_once_and_copied_never(monkeypatch):
    scale_parts(monkeypatch, SCALE)
    bucket, data = CountingBucket(), random.Random(7).randbytes(HUNDRED_GIB)
    driver = ObjectDriver(bucket)
    row, step = Row(driver.stage(KEY)), 300 * 2**20 // SCALE

    with driver.append(row.handle, at=0, fence=row) as writer:
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            writer.sync()
    driver.publish(row.handle, size=len(data), fence=row)

    assert bucket.objects == {OBJECTS + KEY: data}
    assert bucket.completed == [5025]
    assert bucket.calls["copy_part"] == 0
    assert bucket.begun == {}


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "dies", "steps back", "publishes", "moves"]), st.integers(0, 200)), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_whatever_became_of_its_writers_a_session_publishes_its_bytes(steps, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        scale_parts(monkeypatch, 2**20)  # blocks of 8 bytes
        monkeypatch.setattr("storage.drivers.objects.parts._SIZES", ((3, 8), (5, 64), (10_000, 256)))
        session = _Session(random.Random(seed))
        for step, size in steps:
            session.do(step, size)

        session.publish()
        session.driver.sweep_staged(lambda _keys: set(), older_than_s=-60.0)  # what the dead came to tell nobody of

    assert session.bucket.objects == {OBJECTS + session.key: session.data}
    assert session.bucket.begun == {}


class _Session:
    """A session as the store keeps it: its row, and what the row says must have been kept."""

    def __init__(self, chance: random.Random) -> None:
        self.bucket, self.chance = CountingBucket(), chance
        self.driver, self.key = ObjectDriver(self.bucket), KEY
        self.row, self.data, self.start, self.moves = Row(self.driver.stage(KEY)), b"", 0, 0

    def do(self, step: str, size: int) -> None:
        if step == "publishes":
            self.publish()
        elif step == "moves":
            self.move()
        else:
            self.append(size, back=step == "steps back", dies=step == "dies")

    def publish(self) -> None:
        try:
            self.driver.publish(self.row.handle, size=len(self.data), fence=self.row)
        except StagedBusy:
            self.move()
            self.driver.publish(self.row.handle, size=len(self.data), fence=self.row)

    def move(self) -> None:
        self.moves += 1
        left, self.key = self.row.handle, f"{MOVED}{self.moves}"
        self.row.handle = self.driver.restage(left, self.key, size=len(self.data), keep=self.row)
        self.driver.discard(left)
        self.start = len(self.data)  # what was moved is moved as a whole

    def append(self, size: int, *, back: bool, dies: bool) -> None:
        at = self.start if back else len(self.data)
        self.data, self.start = self.data[:at], at
        try:
            self._write(size, dies=dies)
        except StagedBusy:
            self.move()
            self._write(size, dies=dies)

    def _write(self, size: int, *, dies: bool) -> None:
        try:
            with self.driver.append(self.row.handle, at=self.start, fence=self.row) as writer:
                while size:
                    piece = self.chance.randbytes(min(size, self.chance.randint(1, 40)))
                    size -= len(piece)
                    writer.write(piece)
                    arrived = self.data + piece
                    if self.chance.random() < 0.5:
                        writer.sync()
                        if self.chance.random() < 0.8:  # else the row is not saved any more
                            self.data = arrived
                            continue
                        raise ConnectionResetError
                    if dies:
                        raise ConnectionResetError
                    writer.sync()
                    self.data = arrived
        except ConnectionResetError:
            return
