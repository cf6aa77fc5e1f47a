"""A GGUF file inside a tar archive, found without unpacking: what tar stores lies in one piece, where it can be mapped.

Only headers are read, a bounded number of them; what is not a plain file with a sensible name is passed over.
Spec: POSIX pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar, "Basic Tar Format".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from runtime.gguf import MAGIC

BLOCK = 512
_MOST_HEADERS = 1024
_LONGEST_EXTENSION = 64 * 1024  # bytes of a long name, or of a pax header
_FILE_TYPES = {b"0", b"\0", b"7"}
_LONG_NAME, _PAX = b"L", b"x"
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}  # by their first two bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


class FilePart:
    """Reads of a part of a file, as if it were a file of its own."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file, self._offset = file, offset
        file.seek(offset)

    def seek(self, position: int) -> int:
        return self._file.seek(self._offset + position) - self._offset

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def gguf_member(file: BinaryIO, size: int) -> Member | None:
    """The first GGUF file of an archive of `size` bytes, by its name or else by how it begins; None without one."""
    name, length = "", None  # what a header before this one said of it
    offset = 0
    for _ in range(_MOST_HEADERS):
        header = _read(file, offset, BLOCK)
        if not _is_header(header):
            return None
        kind, stored = header[156:157], _number(header[124:136])
        data = offset + BLOCK
        if kind in {_LONG_NAME, _PAX}:
            if not 0 <= stored <= _LONGEST_EXTENSION:
                return None
            extension = _read(file, data, stored)
            if kind == _LONG_NAME:
                name = _text(extension)
            else:
                told = _pax(extension)
                name, length = told.get("path", name), _decimal(told.get("size", ""))
        else:
            stored = stored if length is None else length
            member = Member(name or _name(header), data, stored)
            if stored < 0 or data + stored > size:
                return None
            if kind in _FILE_TYPES and _is_inside(member.name) and _is_gguf(file, member):
                return member
            name, length = "", None
        offset = data + -(-stored // BLOCK) * BLOCK
    return None


def _is_gguf(file: BinaryIO, member: Member) -> bool:
    return member.size > len(MAGIC) and _read(file, member.offset, len(MAGIC)) == MAGIC


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _is_header(block: bytes) -> bool:
    """Whether its checksum holds; the empty block at the end has none."""
    if len(block) < BLOCK or not any(block):
        return False
    return _number(block[148:156]) == sum(block) - sum(block[148:156]) + 8 * 0x20


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:262] == b"ustar" and header[262:264] != b" \0" else ""
    name = _text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _number(field: bytes) -> int:
    """Octal digits, or a big-endian number after a first bit; -1 for neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and all(0x30 <= digit < 0x38 for digit in digits) else (-1 if digits else 0)


def _pax(raw: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n`, as far as they make sense."""
    told: dict[str, str] = {}
    while raw:
        digits, space, _ = raw.partition(b" ")
        length = _decimal(digits.decode("ascii", "replace")) if space and len(digits) < 8 else None
        if not length or length > len(raw):
            break
        key, _, value = raw[len(digits) + 1 : length - 1].partition(b"=")
        told[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        raw = raw[length:]
    return told


def _decimal(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
