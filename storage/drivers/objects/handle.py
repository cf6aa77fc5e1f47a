"""The handle of staged bytes in an object store: what a session's row has to say for any node to go on with them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import Final, Self

from storage.drivers.protocol import check_key
from storage.errors import KeyUnknown

_WRITER: Final = re.compile(r"[0-9a-f]{16}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Handle:
    """`key`, or `key:writer:next`, or `key:writer:next:size`.

    writer: names the record of what is staged; each writer has one of its own. next: the first part number that no
    writer so far may use. size: of what is about to be published, or was; then nothing may be appended any more.

    The row is the arbiter: a handle holds once a claim that is still held has written it there. A writer whose claim
    lapsed cannot reserve numbers any more, and those that it has are nobody else's, so it can spoil nothing.
    """

    key: str
    writer: str | None = None
    next: int = 1
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises KeyUnknown for what no handle is."""
        key, *told = text.split(":")
        check_key(key)
        if not told:
            return cls(key)
        writer, *numbers = told
        if not _WRITER.fullmatch(writer) or len(numbers) not in (1, 2) or not all(map(_NUMBER.fullmatch, numbers)):
            raise KeyUnknown("not a handle of staged bytes", key=key)
        return cls(key, writer, *map(int, numbers))

    def __str__(self) -> str:
        told = (self.writer, self.next if self.writer is not None else None, self.size)
        return ":".join((self.key, *(str(each) for each in told if each is not None)))

    def taken(self) -> Handle:
        """For a writer that comes now."""
        return replace(self, writer=secrets.token_hex(8))

    def reserving(self, first_free: int) -> Handle:
        return replace(self, next=first_free)

    def sealed(self, size: int) -> Handle:
        """For publishing `size` bytes, with one more part number to do it."""
        writer = self.writer if self.writer is not None else secrets.token_hex(8)
        return replace(self, writer=writer, next=self.next + 1, size=size)
