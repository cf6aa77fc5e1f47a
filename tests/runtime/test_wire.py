"""Frames, whole and broken."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.wire import MAX_FRAME_BYTES, Channel, FrameDecoder, FrameInvalid, encode_frame, read_frame

BROKEN = [
    pytest.param(struct.pack(">I", MAX_FRAME_BYTES + 1), id="too large"),
    pytest.param(struct.pack(">I", 3) + b"abc", id="not JSON"),
    pytest.param(struct.pack(">I", 2) + b"[]", id="not an object"),
    pytest.param(struct.pack(">I", 4) + b'"\xff\xff"', id="not UTF-8"),
    pytest.param(struct.pack(">I", 200_000) + b"[" * 200_000, id="nested too deep"),
]


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


@given(
    bodies=st.lists(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none())), max_size=4),
    cut=st.integers(1, 40),
)
def test_frames_survive_any_cutting_of_the_stream(bodies: list[dict[str, object]], cut: int) -> None:
    stream = b"".join(map(encode_frame, bodies))
    decoder, received = FrameDecoder(), []
    for start in range(0, len(stream), cut):
        decoder.feed(stream[start : start + cut])
        while (frame := decoder.next()) is not None:
            received.append(frame)

    assert received == bodies
    assert decoder.is_empty


@pytest.mark.parametrize("stream", BROKEN)
def test_what_is_no_frame_is_refused(stream: bytes, pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(stream)

    with pytest.raises(FrameInvalid):
        channel.receive(timeout_s=1)


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": object()}, {"x": "a" * MAX_FRAME_BYTES}])
def test_what_cannot_travel_is_not_sent(body: dict[str, object]) -> None:
    with pytest.raises(FrameInvalid):
        encode_frame(body)


def test_an_end_between_frames_is_an_end(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(encode_frame({"a": 1}))
    peer.close()

    assert channel.receive(timeout_s=1) == {"a": 1}
    assert channel.receive(timeout_s=1) is None


def test_an_end_inside_a_frame_is_an_error(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(encode_frame({"a": 1})[:-1])
    peer.close()

    with pytest.raises(FrameInvalid, match="middle"):
        channel.receive(timeout_s=1)


def test_a_time_out_keeps_what_has_arrived(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    frame = encode_frame({"a": "é"})
    peer.sendall(frame[:6])

    with pytest.raises(TimeoutError):
        channel.receive(timeout_s=0.01)
    peer.sendall(frame[6:])

    assert channel.receive(timeout_s=1) == {"a": "é"}


@pytest.mark.parametrize(
    "stream", [*BROKEN, pytest.param(b"\0\0", id="cut header"), pytest.param(b"\0\0\0\5{", id="cut")]
)
def test_asyncio_streams_refuse_the_same(stream: bytes) -> None:
    async def read() -> object:
        reader = asyncio.StreamReader(limit=2**20)
        reader.feed_data(stream)
        reader.feed_eof()
        return await read_frame(reader)

    with pytest.raises(FrameInvalid):
        asyncio.run(read())


@pytest.mark.parametrize(("most", "is_taken"), [(7, True), (6, False)])
def test_an_asyncio_stream_may_be_held_to_short_frames(most: int, is_taken: bool) -> None:
    async def read() -> object:
        reader = asyncio.StreamReader()
        reader.feed_data(encode_frame({"a": 1}))
        return await read_frame(reader, max_bytes=most)

    if is_taken:
        assert asyncio.run(read()) == {"a": 1}
    else:
        with pytest.raises(FrameInvalid, match="a frame of 7 bytes is larger than 6"):
            asyncio.run(read())


def test_a_frame_that_the_peer_does_not_take_at_once_goes_bit_by_bit(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    frame = encode_frame({"a": "x" * 4 * 1024**2})
    left, received = memoryview(frame), bytearray()

    for _ in range(10_000):
        try:
            left = left[channel.send_some(left, timeout_s=0.01) :]
        except TimeoutError:
            received += peer.recv(2**20)
        if not left:
            break

    peer.settimeout(1)
    while len(received) < len(frame):
        received += peer.recv(2**20)
    assert received == frame


def test_asyncio_streams_end_between_frames() -> None:
    async def read() -> list[object]:
        reader = asyncio.StreamReader()
        reader.feed_data(encode_frame({"a": 1}))
        reader.feed_eof()
        return [await read_frame(reader), await read_frame(reader)]

    assert asyncio.run(read()) == [{"a": 1}, None]
