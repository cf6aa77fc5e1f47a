"""Bounded reads of the header of a GGUF file; what the bytes mean is told in `runtime.gguf`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from typing import BinaryIO

from runtime.errors import GGUFInvalid
from runtime.gguf_types import SCALARS, ValueType

MAX_HEADER_BYTES = 256 * 1024**2  # the largest known header, a 262 k vocabulary with its merges, is near 16 MiB
MAX_ELEMENTS = 8 * 1024**2  # of all arrays of strings together: each is a step of a Python loop
MAX_STRING = 64 * 1024**2
KEPT_STRING = 1024**2  # longer values stay in the file
KEPT_ARRAY = 1024  # elements; longer arrays stay in the file
KEPT_BYTES = 16 * 1024**2  # all kept values together
MARK_EVERY = 4096
KEPT_NAMES = 8 * 1024**2  # bytes of all keys and tensor names together
_WINDOW = 1024**2
_LENGTH = struct.Struct("<Q")
_KEY_LIMIT = 65_535  # bytes; the specification's limit of a key

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """A value left in the file: an array, or (STRING, 1) a long text. `marks`: the offset of every 4096th string."""

    type: ValueType
    length: int
    offset: int
    marks: tuple[int, ...] = ()


Value = Scalar | list[Scalar] | Span


class Reader:
    """Little-endian reads through one window of the file. No read passes the end of the file or of the header bound."""

    def __init__(self, file: BinaryIO, size: int, start: int = 0) -> None:
        self._file = file
        self._limit = min(size, MAX_HEADER_BYTES)
        self._window = b""
        self._base = start
        self._pos = 0
        self._kept = 0
        self._names = 0
        self._elements = 0

    @property
    def offset(self) -> int:
        return self._base + self._pos

    def take(self, length: int) -> bytes:
        self._need(length)
        taken = self._window[self._pos : self._pos + length]
        self._pos += length
        return taken

    def scalar(self, kind: ValueType) -> Scalar:
        layout = SCALARS[kind]
        value: Scalar = layout.unpack(self.take(layout.size))[0]
        return value

    def count(self, limit: int, what: str) -> int:
        number = int(self.scalar(ValueType.UINT64))
        if number > limit or number * 12 > self._limit:  # no entry of either list is shorter than 12 bytes
            raise GGUFInvalid(f"not a valid GGUF file: {number} {what} are more than it can hold")
        return number

    def key(self, limit: int = _KEY_LIMIT) -> str:
        length = int(self.scalar(ValueType.UINT64))
        if not 0 < length <= limit:
            raise GGUFInvalid(f"not a valid GGUF file: a name of {length} bytes, allowed are 1 to {limit}")
        self._names += length
        if self._names > KEPT_NAMES:
            raise GGUFInvalid(f"not a GGUF file we can read: its names have more than {KEPT_NAMES} bytes")
        raw = self.take(length)
        if b"\0" in raw:
            raise GGUFInvalid("not a valid GGUF file: a name with a NUL in it")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise GGUFInvalid("not a valid GGUF file: a name is not UTF-8") from None

    def value_type(self) -> ValueType:
        number = int(self.scalar(ValueType.UINT32))
        try:
            return ValueType(number)
        except ValueError:
            raise GGUFInvalid(f"not a valid GGUF file: unknown metadata type {number}") from None

    def value(self, kind: ValueType) -> Value:
        if kind is ValueType.ARRAY:
            return self._array()
        if kind is not ValueType.STRING:
            return self.scalar(kind)
        start = self.offset
        length = self._string_length()
        if length > KEPT_STRING or not self._keep(length):
            self._skip(length)
            return Span(ValueType.STRING, 1, start, (start,))
        return self.take(length).decode(errors="replace")

    def string(self, limit: int = MAX_STRING) -> str:
        length = self._string_length()
        if length > limit:
            raise GGUFInvalid(f"not a GGUF file we can read: an element of an array has {length} bytes")
        return self.take(length).decode(errors="replace")

    def numbers(self, kind: ValueType, length: int) -> list[Scalar]:
        layout = SCALARS[kind]
        return list(struct.unpack(f"<{length}{layout.format[-1]}", self.take(length * layout.size)))

    def skip_strings(self, count: int) -> None:
        """Pass over `count` strings; the one hot loop of a header."""
        unpack = _LENGTH.unpack_from
        while count:
            self._need(8)
            window, pos = self._window, self._pos
            steps = repeat(None, count)
            try:
                for _ in steps:
                    (length,) = unpack(window, pos)
                    pos += length + 8
                count = 0
            except (struct.error, OverflowError):
                # the window ends here, or a length led past everything: the jump below tells which
                count = length_hint(steps) + 1
            self._jump(self._base + pos)

    def _array(self) -> Value:
        kind = self.value_type()
        length = int(self.scalar(ValueType.UINT64))
        if kind is ValueType.ARRAY:
            raise GGUFInvalid("not a GGUF file we can read: arrays inside arrays")
        smallest = 8 if kind is ValueType.STRING else SCALARS[kind].size
        if length * smallest > self._limit - self.offset:
            raise GGUFInvalid(f"not a valid GGUF file: an array of {length} elements runs past the end of the file")
        if kind is ValueType.STRING:
            return self._string_array(length)
        if length <= KEPT_ARRAY and self._keep(8 * length):
            return self.numbers(kind, length)
        start = self.offset
        self._skip(length * smallest)
        return Span(kind, length, start)

    def _string_array(self, length: int) -> Value:
        self._elements += length
        if self._elements > MAX_ELEMENTS:
            raise GGUFInvalid(f"not a GGUF file we can read: more than {MAX_ELEMENTS} strings in its arrays")
        start = self.offset
        marks = []
        for first in range(0, length, MARK_EVERY):
            marks.append(self.offset)
            self.skip_strings(min(MARK_EVERY, length - first))
        if length <= KEPT_ARRAY and self._keep(self.offset - start):
            again = Reader(self._file, self._limit, start)
            return [again.string() for _ in range(length)]
        return Span(ValueType.STRING, length, start, tuple(marks))

    def _string_length(self) -> int:
        length = int(self.scalar(ValueType.UINT64))
        if length > MAX_STRING or length > self._limit - self.offset:
            raise GGUFInvalid(f"not a valid GGUF file: a string of {length} bytes runs past the end of the file")
        return length

    def _keep(self, length: int) -> bool:
        self._kept += length
        return self._kept <= KEPT_BYTES

    def _skip(self, length: int) -> None:
        self._jump(self.offset + length)

    def _jump(self, offset: int) -> None:
        if offset > self._limit:
            raise GGUFInvalid("not a whole GGUF file: its header runs past the end of the file")
        if self._base <= offset <= self._base + len(self._window):
            self._pos = offset - self._base
        else:
            self._base, self._window, self._pos = offset, b"", 0

    def _need(self, length: int) -> None:
        """Have `length` bytes at the current position in the window."""
        if self._pos + length <= len(self._window):
            return
        start = self.offset
        if length > self._limit - start:
            raise GGUFInvalid("not a whole GGUF file: its header runs past the end of the file")
        self._file.seek(start)
        self._window = self._file.read(min(max(length, _WINDOW), self._limit - start))
        self._base, self._pos = start, 0
        if len(self._window) < length:
            raise GGUFInvalid("not a whole GGUF file: it is shorter than its size")
