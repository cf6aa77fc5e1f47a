"""GGUF files inside tar archives: found where they lie, in archives of every style, hostile ones too."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.archive import BLOCK, FilePart, Member, gguf_member
from tests.foreign_models import packed

DATA = b"GGUF" + bytes(range(200)) * 7
LONG = "folder/" * 30 + "model.gguf"


def found(raw: bytes) -> Member | None:
    return gguf_member(io.BytesIO(raw), len(raw))


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["m.gguf", "./models/m.gguf", "weights.bin", LONG, "folder/ü.gguf"])
def test_a_file_is_found_by_how_it_begins(style: int, name: str) -> None:
    raw = packed({"README.md": b"x" * 700, "empty": b"", name: DATA, "later.gguf": DATA}, style=style)

    member = found(raw)

    assert member is not None
    assert member.name == name
    assert raw[member.offset : member.offset + member.size] == DATA
    assert member.offset % BLOCK == 0


def entry(kind: bytes, name: str = "m.gguf", data: bytes = DATA, **told: str) -> bytes:
    """One member of any type, with pax attributes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.pax_headers = kind, len(data), told
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


PASSED_OVER = {
    "a link": entry(tarfile.SYMTYPE),
    "a hard link": entry(tarfile.LNKTYPE),
    "a device": entry(tarfile.CHRTYPE),
    "a folder": entry(tarfile.DIRTYPE),
    "a name that leaves": entry(tarfile.REGTYPE, "../m.gguf"),
    "a name that leaves later": entry(tarfile.REGTYPE, "a/../../m.gguf"),
    "a name from the root": entry(tarfile.REGTYPE, "/m.gguf"),
    "a name that only a header before it tells": entry(tarfile.REGTYPE, "m.gguf", path="../m.gguf"),
    "what only has the name": entry(tarfile.REGTYPE, "m.gguf", b"nothing of the kind"),
    "four letters": entry(tarfile.REGTYPE, "m.gguf", b"GGUF"),
}


@pytest.mark.parametrize("raw", PASSED_OVER.values(), ids=PASSED_OVER.keys())
def test_what_is_no_plain_file_is_passed_over(raw: bytes) -> None:
    assert found(raw) is None


def header(size: bytes, kind: bytes = b"0") -> bytes:
    """A header with a right checksum and any size field, and a file behind it."""
    block = bytearray(b"m.gguf".ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 12)
    block += b" " * 8 + kind + bytes(BLOCK - len(block) - 9)
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + DATA.ljust(2048, b"\0")


HOSTILE = {
    "nothing": b"",
    "half a block": bytes(100),
    "only an end": bytes(1024),
    "noise": b"noise" * 1000,
    "a size past the end": header(b"77777777777"),
    "a size that is no number": header(b"9x"),
    "a size of 95 bits": header(b"\xff" + b"\xff" * 11),
    "a long name past the end": header(b"\x80" + b"\0" * 3 + struct.pack(">Q", 2**62), b"L"),
    "a pax header of a megabyte": header(b"4000000", b"x"),
    "a pax header without a size": header(b"junk", b"x"),
    "a checksum that is wrong": bytes([1]) + header(b"400")[1:],
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_hold_nothing(raw: bytes) -> None:
    assert found(raw) is None


def test_a_size_is_taken_in_either_spelling() -> None:
    octal, binary = found(header(b"2000")), found(header(b"\x80" + struct.pack(">3xQ", 1024)))

    assert octal is not None
    assert octal == binary
    assert octal.size == 1024


def test_members_are_looked_at_so_far() -> None:
    one = packed({"a": b"x"})[: 2 * BLOCK]

    assert found(one * 1024 + header(b"2000")) is None
    assert found(one * 1023 + header(b"2000")) is not None


@given(st.data())
def test_damaged_archives_are_read_or_passed_over(data: st.DataObject) -> None:
    raw = bytearray(packed({"README.md": b"x" * 700, LONG: DATA}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    member = found(bytes(raw[: data.draw(st.integers(0, len(raw)))]))

    if member is not None:
        assert 0 < member.offset <= member.offset + member.size <= len(raw)


def test_a_part_reads_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with (tmp_path / "f").open("rb") as file:
        part = FilePart(file, 3)

        assert part.read(2) == b"34"
        assert part.seek(4) == 4
        assert part.read(10) == b"789"
