"""What a template computes with: Go's values, as far as a conversation has them.

bool, int, float, complex, str and None are Python's own. None is a nil inside data; INVALID is a nil that has gone
through a pipeline, whose fields may be asked for. A str may hold lone surrogates U+DC80 to U+DCFF: bytes that are no
UTF-8, since strings are sliced at any byte.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final, TypeAlias

from runtime.templates.go.budget import Refused

_STRAY = re.compile("[\ud800-\udfff]")
_READABLE = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


class _Invalid(Enum):
    INVALID = "invalid"


INVALID: Final = _Invalid.INVALID


class Byte(int):
    """A uint8: what a string is indexed to."""


class Held(int):
    """An int inside data of any type, until a pipeline takes it out. `slice` alone refuses it as an index."""


class Blob:
    """Bytes, of an image; decoded when a template looks at them."""

    def __init__(self, source: str | bytes) -> None:
        self._source = source

    @cached_property
    def data(self) -> bytes:
        if isinstance(self._source, bytes):
            return self._source
        try:
            return base64.b64decode(self._source)
        except ValueError:
            return b""


class Prints(Enum):
    """How a type is printed: by Go's default, as JSON, or as the words of a JSON Schema type."""

    DEFAULT = "default"
    JSON = "json"
    WORDS = "words"


class Omit(Enum):
    """When the JSON form of a struct leaves a field out."""

    NEVER = "never"
    NIL = "nil"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Type:
    """What the values of a named type have in common.

    keys: of a struct's JSON form: field, key, and when it is left out. zero: what a map has for keys that are not in
    it. is_sorted: whether the JSON form of a map is. nil_text: what prints for a nil map.
    """

    name: str
    prints: Prints = Prints.DEFAULT
    keys: tuple[tuple[str, str, Omit], ...] = ()
    zero: object = None
    is_sorted: bool = True
    nil_text: str = "null"


ANY_LIST = Type("[]interface {}")
STRING_LIST = Type("[]string")
ANY_MAP = Type("map[string]interface {}")


class List:
    """A slice: a window on items that others may share; it can be widened again up to `end`."""

    __slots__ = ("_items", "end", "is_nil", "start", "stop", "type")

    def __init__(self, items: Sequence[object], kind: Type = ANY_LIST, *, is_nil: bool = False) -> None:
        self._items = items
        self.type = kind
        self.is_nil = is_nil
        self.start, self.stop, self.end = 0, len(items), len(items)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._items[self.start + index]

    def __iter__(self) -> Iterator[object]:
        return (self._items[index] for index in range(self.start, self.stop))

    @property
    def capacity(self) -> int:
        return self.end - self.start

    def window(self, start: int, stop: int, end: int) -> List:
        """The items from `start` to `stop`, both counted from the first of these; widenable to `end`."""
        window = List(self._items, self.type, is_nil=self.is_nil)
        window.start, window.stop, window.end = self.start + start, self.start + stop, self.start + end
        return window


class Map:
    """String keys to values."""

    __slots__ = ("_sorted", "entries", "is_nil", "type")

    def __init__(self, entries: Mapping[str, object], kind: Type = ANY_MAP, *, is_nil: bool = False) -> None:
        self.entries = entries
        self.type = kind
        self.is_nil = is_nil
        self._sorted: list[str] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def keys(self) -> list[str]:
        """In the order of their bytes."""
        if self._sorted is None:
            self._sorted = sorted(self.entries, key=encoded)
        return self._sorted


class Struct:
    """Named fields, in order."""

    __slots__ = ("fields", "type")

    def __init__(self, kind: Type, fields: Mapping[str, object]) -> None:
        self.type = kind
        self.fields = fields


Sized: TypeAlias = str | List | Map | Blob


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def canonical(text: str) -> str:
    """`text` with bytes put together that became UTF-8 when strings were joined."""
    return text if text.isascii() or not _STRAY.search(text) else decoded(encoded(text))


def readable(text: str) -> str:
    """`text` with U+FFFD for every byte that is no UTF-8."""
    return text.translate(_READABLE) if not text.isascii() and _STRAY.search(text) else text


def byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(encoded(text))


def truth(value: object) -> bool:
    """Whether `if` takes it for true: everything but zero, nil and what is empty."""
    if isinstance(value, Blob):
        return len(value.data) > 0
    if isinstance(value, Struct):
        return True
    return value is not INVALID and bool(value)


def type_name(value: object) -> str:
    """As Go prints it."""
    if isinstance(value, List | Map | Struct):
        return value.type.name
    names = {
        bool: "bool",
        int: "int",
        Held: "int",
        Byte: "uint8",
        float: "float64",
        complex: "complex128",
        str: "string",
    }
    return names.get(type(value), "api.ImageData" if isinstance(value, Blob) else "nil")


def is_nil(value: object) -> bool:
    return value is None or value is INVALID or (isinstance(value, List | Map) and value.is_nil)


def from_json_floats(value: object) -> object:
    """A JSON value as Go reads it without being told a type: every number is a float64. Raises Refused."""
    match value:
        case bool() | None:
            return value
        case int():
            try:
                return float(value)
            except OverflowError:
                raise Refused("a number of the request is out of range") from None
        case list():
            return List([from_json_floats(each) for each in value])
        case dict():
            return Map({readable(str(key)): from_json_floats(each) for key, each in value.items()})
        case str():
            return readable(value)
    return value
