"""Memory that many writers share: how much of it there is, whose turn it is, and who has to give way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from storage.drivers.objects import blocks as blocks_module
from storage.drivers.objects import driver as driver_module
from storage.drivers.objects.blocks import Blocks
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.objects.names import OBJECTS
from storage.errors import StorageUnavailable
from tests.storage.objects.counted import CountingBucket, scale_parts

WAIT_S = 30


class SlowBucket(CountingBucket):
    """Keeps each part waiting until `go`, and knows how many bytes of parts it was given meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.held: list[int] = []

    def put_part(self, name: str, upload: str, number: int, body: object, size: int) -> str:  # type: ignore[override]
        self.held.append(size)
        assert self.go.wait(WAIT_S)
        return super().put_part(name, upload, number, body, size)  # type: ignore[arg-type]


class Still:
    """Fills a block and does nothing; or gives it back when it is asked for."""

    def __init__(self, give: Callable[[], bool] = lambda: False) -> None:
        self.give_way = give


@pytest.fixture(autouse=True)
def parts_of_16_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    scale_parts(monkeypatch, 2**19)


def keys(count: int) -> list[str]:
    return [f"blobs/ab/{number:03}" for number in range(count)]


def push(driver: ObjectDriver, key: str, data: bytes) -> None:
    handle = [driver.stage(key)]

    def fence(new: str | None = None, /) -> None:
        handle[0] = new or handle[0]

    with driver.append(handle[0], at=0, fence=fence) as writer:
        for at in range(0, len(data), 7):
            writer.write(data[at : at + 7])
    driver.publish(handle[0], size=len(data), fence=fence)


def test_sixty_four_writers_hold_no_more_than_four_blocks():
    bucket = SlowBucket()
    driver = ObjectDriver(bucket)
    data = {key: key.encode() * 10 for key in keys(64)}

    with ThreadPoolExecutor(64) as pool:
        pushes = [pool.submit(push, driver, key, data[key]) for key in data]
        while len(bucket.held) < 4 and not any(each.done() for each in pushes):
            threading.Event().wait(0.01)
        held_at_once = len(bucket.held)
        bucket.go.set()
        for each in pushes:
            each.result(WAIT_S)

    assert held_at_once == 4
    assert {name.removeprefix(OBJECTS): body for name, body in bucket.objects.items()} == data


def test_a_writer_whose_client_stands_still_gives_its_block_to_who_waits(monkeypatch):
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.02)
    bucket = CountingBucket()
    driver = ObjectDriver(bucket)
    with ExitStack() as stack:
        still = [stack.enter_context(driver.append(driver.stage(key), at=0)) for key in keys(4)]
        for writer in still:
            writer.write(b"still")

        push(driver, "blobs/ab/quick", b"quick" * 20)

        for writer in still:
            writer.write(b" going on and on")
            writer.sync()
        handles = [writer.handle for writer in still]
    for handle in handles:
        driver.publish(handle, size=21)
    assert bucket.objects[f"{OBJECTS}blobs/ab/quick"] == b"quick" * 20
    assert [bucket.objects[OBJECTS + key] for key in keys(4)] == [b"still going on and on"] * 4


def test_what_a_store_refuses_while_a_writer_gives_way_is_that_writers_error(monkeypatch):
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.02)
    monkeypatch.setattr(driver_module, "_BLOCKS", 1)
    bucket = CountingBucket()
    driver = ObjectDriver(bucket)
    put, refused = bucket.put, list[str]()

    def refuse_pieces(name: str, data: bytes) -> None:
        if "piece-" in name:
            refused.append(name)
            raise StorageUnavailable("SlowDown")
        put(name, data)

    monkeypatch.setattr(bucket, "put", refuse_pieces)
    with pytest.raises(StorageUnavailable), driver.append(driver.stage("blobs/ab/still"), at=0) as still:
        still.write(b"still")
        push(driver, "blobs/ab/quick", b"quick" * 20)
        still.sync()

    assert len(refused) == 1
    assert bucket.objects[f"{OBJECTS}blobs/ab/quick"] == b"quick" * 20


def test_whoever_finds_no_block_in_time_is_refused(monkeypatch):
    monkeypatch.setattr(blocks_module, "_WAIT_S", 0.05)
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.01)
    blocks = Blocks(1, 16)
    blocks.take(Still())

    with pytest.raises(StorageUnavailable):
        blocks.take(Still())


def test_a_writer_that_takes_long_gives_its_block_to_who_waits(monkeypatch):
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.05)  # and it is never still: it is touched each time it is asked
    monkeypatch.setattr(blocks_module, "_HELD_S", 0.2)
    blocks, asked = Blocks(1, 16), list[str]()

    def give() -> bool:
        asked.append("slow")
        blocks.fill_no_more(slow)
        blocks.give(held)
        return True

    slow = Still(give)
    held = blocks.take(slow)
    stop = threading.Event()
    touching = threading.Thread(target=lambda: [blocks.touch(slow) for _ in iter(lambda: stop.wait(0.005), True)])
    touching.start()
    try:
        assert blocks.take(Still()) is held
    finally:
        stop.set()
        touching.join()
    assert asked == ["slow"]


def test_those_who_cannot_give_way_now_keep_nobody_from_asking_the_next(monkeypatch):
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.01)
    blocks = Blocks(2, 16)
    blocks.take(Still())
    held = blocks.take(able := Still(lambda: (blocks.fill_no_more(able), blocks.give(held)) != ()))

    assert blocks.take(Still()) is held


def test_who_waits_while_blocks_come_free_waits_on(monkeypatch):
    monkeypatch.setattr(blocks_module, "_WAIT_S", 0.4)
    monkeypatch.setattr(blocks_module, "_STILL_S", 0.02)
    blocks, waited = Blocks(1, 16), list[bytearray]()
    block = blocks.take(Still())
    waiting = threading.Thread(target=lambda: waited.append(blocks.take(Still())))
    waiting.start()
    try:
        for _ in range(4):  # as if those ahead had theirs
            threading.Event().wait(0.2)
            with blocks._changed:
                blocks._given_at = time.monotonic()
    finally:
        blocks.give(block)
        waiting.join(WAIT_S)

    assert waited == [block]


def test_blocks_go_round_in_the_order_of_asking(monkeypatch):
    monkeypatch.setattr(blocks_module, "_STILL_S", 30.0)
    blocks, order, asked = Blocks(1, 16), list[int](), list[threading.Thread]()
    block = blocks.take(Still())

    def take(number: int) -> None:
        found = blocks.take(Still())
        order.append(number)
        blocks.give(found)

    for number in range(5):
        asked.append(threading.Thread(target=take, args=(number,)))
        asked[-1].start()
        while len(blocks._queue) < number + 1:
            threading.Event().wait(0.001)
    blocks.give(block)
    for each in asked:
        each.join(WAIT_S)

    assert order == [0, 1, 2, 3, 4]
