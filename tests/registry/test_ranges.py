import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import RangeInvalid
from registry.ranges import ByteRange, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=500-1499", ByteRange(500, 1499)),
        ("bytes=500-", ByteRange(500, 2047)),
        ("bytes=-500", ByteRange(1548, 2047)),
        ("bytes=-5000", ByteRange(0, 2047)),
        ("bytes=2000-5000", ByteRange(2000, 2047)),
        ("bytes= 0-0", ByteRange(0, 0)),
        ("Bytes=0-0", ByteRange(0, 0)),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("lines=1-2", None),
        ("bytes", None),
        ("", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_a_range_of_2048_bytes(header, expected):
    assert parse_range(header, 2048) == expected


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
def test_a_range_without_a_byte_is_refused(header):
    with pytest.raises(RangeInvalid):
        parse_range(header, 2048)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_blob_has_no_range(header):
    with pytest.raises(RangeInvalid):
        parse_range(header, 0)


@given(st.text(max_size=40), st.integers(0, 2**40))
def test_any_text_gives_a_range_inside_the_blob_or_none(text, size):
    try:
        found = parse_range("bytes=" + text, size)
    except RangeInvalid:
        return
    assert found is None or 0 <= found.first <= found.last < size
