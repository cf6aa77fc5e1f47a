import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import RangeInvalid
from registry.ranges import ByteRange, parse_ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, []),
        ("bytes=500-1499", [ByteRange(500, 1499)]),
        ("bytes=500-", [ByteRange(500, 2047)]),
        ("bytes=-500", [ByteRange(1548, 2047)]),
        ("bytes=-5000", [ByteRange(0, 2047)]),
        ("bytes=2000-5000", [ByteRange(2000, 2047)]),
        ("bytes= 0-0", [ByteRange(0, 0)]),
        ("Bytes=0-0", [ByteRange(0, 0)]),
        ("bytes=0-1,5-6", [ByteRange(0, 1), ByteRange(5, 6)]),
        ("bytes=5-6, 0-1 ,,", [ByteRange(5, 6), ByteRange(0, 1)]),
        ("bytes=0-99,50-149", [ByteRange(0, 149)]),
        ("bytes=100-199,0-99", [ByteRange(0, 199)]),
        ("bytes=0-9,20-29,5-14", [ByteRange(0, 14), ByteRange(20, 29)]),
        ("bytes=0-9,5000-6000", [ByteRange(0, 9)]),
        ("bytes=0-9,9-5", [ByteRange(0, 9)]),
        ("bytes=0-9,x", []),
        ("bytes=0-,0-9", []),
        ("bytes=" + ",".join(f"{at}-{at}" for at in range(0, 32, 2)), [ByteRange(at, at) for at in range(0, 32, 2)]),
        ("bytes=" + ",".join(f"{at}-{at}" for at in range(0, 34, 2)), []),
        ("bytes=-", []),
        ("bytes=a-b", []),
        ("bytes=1-2-3", []),
        ("lines=1-2", []),
        ("bytes", []),
        ("", []),
        ("bytes=7-" + "9" * 8000, [ByteRange(7, 2047)]),
        ("bytes=-" + "9" * 8000, [ByteRange(0, 2047)]),
        ("bytes=" + "0" * 40 + "7-8", [ByteRange(7, 8)]),
    ],
)
def test_a_range_of_2048_bytes(header, expected):
    assert list(parse_ranges(header, 2048)) == expected


@pytest.mark.parametrize(
    "header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=-0,4000-", f"bytes={'9' * 40}-"]
)
def test_a_range_without_a_byte_is_refused(header):
    with pytest.raises(RangeInvalid):
        parse_ranges(header, 2048)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_blob_has_no_range(header):
    with pytest.raises(RangeInvalid):
        parse_ranges(header, 0)


@given(st.text("0123456789-,", max_size=40) | st.text(max_size=40), st.integers(0, 2**40))
def test_any_text_gives_ranges_inside_the_blob_or_none(text, size):
    try:
        found = parse_ranges("bytes=" + text, size)
    except RangeInvalid:
        return
    assert all(0 <= each.first <= each.last < size for each in found)
    assert len(found) <= 16
    assert sum(each.size for each in found) <= size
