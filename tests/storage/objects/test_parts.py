"""How bytes are cut into parts, and which of them can be cut off again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.drivers.objects.handle import Handle
from storage.drivers.objects.parts import MAX_PARTS, Part, Piece, Staged, part_size
from storage.errors import KeyUnknown, StorageUnavailable

MIB, GIB, TIB = 2**20, 2**30, 2**40


def plan(size: int, *, wasted: frozenset[int] = frozenset()) -> list[int]:
    """The sizes of the parts of an upload that may not use some numbers."""
    sizes, number = list[int](), 1
    while size:
        if number not in wasted:
            sizes.append(min(size, part_size(number)))
            size -= sizes[-1]
        number += 1
    assert number <= MAX_PARTS + 1
    return sizes


@given(size=st.integers(1, 10 * TIB), wasted=st.frozensets(st.integers(1, MAX_PARTS), max_size=400))
def test_ten_tebibytes_fit_whatever_killed_writers_wasted(size, wasted):
    sizes = plan(size, wasted=wasted)

    assert sum(sizes) == size
    assert all(5 * MIB <= each <= 5 * GIB for each in sizes[:-1])
    assert sizes[-1] <= 5 * GIB


@pytest.mark.parametrize(
    ("size", "most"), [(8 * MIB, 1), (8 * MIB + 1, 2), (31 * GIB, 4000), (100 * GIB, 5025), (10 * TIB, 9600)]
)
def test_parts_grow_with_what_was_uploaded(size, most):
    sizes = plan(size)

    assert len(sizes) <= most
    assert sizes[:-1] == sorted(sizes[:-1])


def test_there_is_no_part_beyond_the_last():
    with pytest.raises(KeyUnknown, match="begin again"):
        part_size(MAX_PARTS + 1)


STAGED = Staged("u", [Part(1, 0, 10, "a"), Part(3, 10, 10, "b")], [Piece("x", 10, 4), Piece("y", 20, 5)], [14], [20])


@pytest.mark.parametrize(
    ("at", "parts", "pieces"),
    [
        (25, 2, [("x", 10, 4), ("y", 20, 5)]),
        (22, 2, [("x", 10, 4), ("y", 20, 2)]),
        (20, 2, [("x", 10, 4)]),
        (14, 1, [("x", 10, 4)]),
        (12, 1, [("x", 10, 2)]),
        (10, 1, []),
        (0, 0, []),
    ],
)
def test_a_cut_keeps_the_parts_before_it_and_finds_the_rest_in_pieces(at, parts, pieces):
    cut = STAGED.cut(at)

    assert cut.end == at
    assert cut.parts == STAGED.parts[:parts]
    assert [(piece.name, piece.start, piece.size) for piece in cut.pieces] == pieces


@pytest.mark.parametrize("at", [5, 15, 19, 26])
def test_a_cut_where_nothing_can_be_read_again_is_refused(at):
    with pytest.raises(KeyUnknown):
        STAGED.cut(at)


def test_pieces_are_kept_for_as_long_as_a_step_back_may_need_them():
    staged = STAGED.cut(25)
    staged.starts, staged.synced = [14], [25]
    assert staged.drop_unneeded() == []

    staged.begin()
    staged.begin()

    assert [piece.name for piece in staged.drop_unneeded()] == ["x"]
    assert staged.cut(20).end == 20


def test_a_record_is_read_as_it_was_written():
    assert Staged.from_json(STAGED.to_json()) == STAGED


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"upload":null,"parts":[[1]],"pieces":[]}'])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(StorageUnavailable):
        Staged.from_json(data)


@pytest.mark.parametrize("text", ["blobs/a", "blobs/a:0123456789abcdef:1", "blobs/a:0123456789abcdef:17:0"])
def test_a_handle_is_read_as_it_was_written(text):
    assert str(Handle.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "../a", "a:", "a:1", "a:0123456789abcdef", "a:0123456789abcdeg:1", "a:0123456789abcdef:x",
     "a:0123456789abcdef:01", "a:0123456789abcdef:-1", "a:0123456789abcdef:1:2:3", "a:0123456789abcdef:1:"],
)  # fmt: skip
def test_what_is_no_handle_names_nothing(text):
    with pytest.raises(KeyUnknown):
        Handle.parse(text)
