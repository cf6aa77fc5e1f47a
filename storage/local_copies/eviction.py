"""Which copies make room for another one. Pure: no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_SHARE: Final = (9, 10)  # of what is free, where nobody sets a bound: logs and the database need room too


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache. is_part: begun and not finished. is_held: mapped by somebody, or being fetched."""

    name: str
    size: int
    used_at: float
    is_part: bool = False
    is_held: bool = False


def most_bytes(bound: int, *, free: int, taken: int) -> int:
    """How much all copies may take. bound: what the operator allows, 0 for a share of what is free without them.

    free: bytes that the filesystem has left beside `taken`, which copies have now.
    """
    room = free + taken
    return min(bound, room) if bound else room * _SHARE[0] // _SHARE[1]


def choose(entries: Sequence[Entry], needed: int, most: int) -> list[Entry] | None:
    """What has to go so that `needed` bytes more are at most `most` with the rest; None where nothing is enough.

    What was begun and left goes first, then the least recently used; what is in use never goes.
    """
    excess = sum(entry.size for entry in entries) + needed - most
    chosen: list[Entry] = []
    for entry in sorted((each for each in entries if not each.is_held), key=_order):
        if excess <= 0:
            break
        chosen.append(entry)
        excess -= entry.size
    return chosen if excess <= 0 else None


def _order(entry: Entry) -> tuple[bool, float, str]:
    return not entry.is_part, entry.used_at, entry.name
