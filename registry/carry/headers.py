"""tar, as much of it as an archive of models needs: headers that are the same every time, and a wary look at others'.

Nothing is unpacked, so no name, link or mode of an archive ever reaches the filesystem.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from tarfile import BLOCKSIZE, RECORDSIZE, TarInfo
from typing import BinaryIO, Final

from registry.carry.errors import ArchiveInvalid
from registry.carry.layout import FOLDERS, MAX_ENTRIES
from registry.remotes.text import one_line

MAX_SIZE: Final = 2**63 - 1
_MAX_EXTENSION: Final = 4096  # bytes of a pax header or a long name: ours have 160
_MAX_RECORDS: Final = 64  # of a pax header
_MAX_EXTENSIONS: Final = 4  # in a row
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_KINDS: Final = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe", tarfile.GNUTYPE_SPARSE: "a sparse file",
}  # fmt: skip


def header(name: str, size: int) -> bytes:
    """What stands before the bytes of a file: nothing in it tells when, where or by whom it was written."""
    info = TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What follows them."""
    return bytes(-size % BLOCKSIZE)


def ending(position: int) -> bytes:
    """The end of an archive that has come to `position`: two empty blocks, and what fills the last record."""
    return bytes(2 * BLOCKSIZE + -(position + 2 * BLOCKSIZE) % RECORDSIZE)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: its bytes are the `size` ones from `offset` on."""

    name: str
    offset: int
    size: int


class Members:
    """Every file of an archive in its order, by its headers alone: the bytes between them are leapt over.

    Folders are nothing to us. Raises ArchiveInvalid for whatever is neither, and where the archive was cut off.
    """

    def __init__(self, file: BinaryIO, *, max_entries: int = MAX_ENTRIES) -> None:
        """file: unbuffered, one that can be sought in."""
        self._file, self._max_entries = file, max_entries
        self._end = file.seek(0, os.SEEK_END)
        self._at = file.seek(0)
        self._pax: dict[str, str] = {}
        self._long_name: str | None = None

    def __iter__(self) -> Iterator[Member]:
        entries = extensions = 0
        while entries <= self._max_entries and extensions <= _MAX_EXTENSIONS:
            info = self._header()
            if info is None:
                return
            if info.type in _PLAIN:
                entries, extensions = entries + 1, 0
                if (member := self._member(info)) is not None:
                    yield member
            else:
                extensions += 1
                self._extension(info)
        many = f"{self._max_entries} entries" if extensions == 0 else f"{_MAX_EXTENSIONS} attributes of one entry"
        raise ArchiveInvalid(f"more than {many}: no archive of models")

    def _header(self) -> TarInfo | None:
        """The next one; None at the archive's end."""
        block = self._read(BLOCKSIZE)
        if not any(block):
            if any(self._read(BLOCKSIZE)):
                raise ArchiveInvalid(f"damaged at byte {self._at - BLOCKSIZE}: one empty block is no end of an archive")
            return None
        try:
            return TarInfo.frombuf(block, "ascii", "surrogateescape")
        except tarfile.HeaderError as error:
            at = self._at - BLOCKSIZE
            problem = f"damaged at byte {at}: {error}" if at else "not a tar archive"
            raise ArchiveInvalid(problem) from None

    def _member(self, info: TarInfo) -> Member | None:
        """The file, and a leap over it; None for a folder."""
        name, size = self._name(info), self._size(info)
        if info.type != tarfile.DIRTYPE:
            member = Member(name, self._at, size)
            self._leap(name, size)
            return member
        if name.rstrip("/") not in FOLDERS or size:
            raise ArchiveInvalid(f"folder {_told(name)} has no place in an image layout")
        return None

    def _name(self, info: TarInfo) -> str:
        name = self._pax.get("path", self._long_name)
        self._long_name = None
        return (info.name if name is None else name).removeprefix("./")

    def _size(self, info: TarInfo) -> int:
        """As the header, or what came before it, says; ends the extensions' reach."""
        text, self._pax = self._pax.get("size"), {}
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise ArchiveInvalid(f"damaged at byte {self._at - BLOCKSIZE}: a size that is no number")
        size = info.size if text is None else int(text)
        if not 0 <= size <= MAX_SIZE:
            raise ArchiveInvalid(f"damaged at byte {self._at - BLOCKSIZE}: no file has {size} bytes")
        return size

    def _leap(self, name: str, size: int) -> None:
        self._at += size + -size % BLOCKSIZE
        if self._at > self._end:
            raise ArchiveInvalid(
                f"cut off: {_told(name)} should end at byte {self._at}, the file has {self._end}; copy it again"
            )
        self._file.seek(self._at)

    def _extension(self, info: TarInfo) -> None:
        """What is said of the next entry. Raises ArchiveInvalid for every kind that none of our entries can need."""
        if info.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            kind = _KINDS.get(info.type, "of an unknown kind")
            raise ArchiveInvalid(f"entry {_told(info.name)} is {kind}; an image layout has only plain files")
        if not 0 <= info.size <= _MAX_EXTENSION:
            raise ArchiveInvalid(f"damaged at byte {self._at - BLOCKSIZE}: {info.size} bytes of names and attributes")
        raw = self._read(info.size + -info.size % BLOCKSIZE)[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            self._long_name = raw.rstrip(b"\0").decode("ascii", "surrogateescape")
            return
        records = _pax_records(raw)
        if any(key.startswith("GNU.sparse") for key in records):
            raise ArchiveInvalid("a sparse file; an image layout has only plain ones")
        if info.type == tarfile.XHDTYPE:
            self._pax = records
        elif records.keys() & {"path", "size"}:
            raise ArchiveInvalid("one name or size for all entries is no archive of models")

    def _read(self, size: int) -> bytes:
        data = read_exactly(self._file, size)
        if len(data) < size:
            raise ArchiveInvalid(f"cut off at byte {self._end}; copy it again")
        self._at += size
        return data


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end: an unbuffered file may give less at a time."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _pax_records(raw: bytes) -> dict[str, str]:
    """`<length> <key>=<value>\\n`, one after the other. Raises ArchiveInvalid."""
    records: dict[str, str] = {}
    at = 0
    while at < len(raw):
        space = raw.find(b" ", at, at + 5)
        digits = raw[at : max(at, space)]
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = raw[space + 1 : end].partition(b"=")
        if len(records) >= _MAX_RECORDS or not at < end <= len(raw) or not equals or not value.endswith(b"\n"):
            raise ArchiveInvalid("damaged: attributes that cannot be read")
        records[key.decode("ascii", "surrogateescape")] = value[:-1].decode("ascii", "surrogateescape")
        at = end
    return records


def _told(name: str) -> str:
    return one_line(ascii(name), 120)
