"""Whose files give way where local copies of others need their room on this node. Pure; `service.py` carries it out.

To bring a copy back takes minutes: no model goes that was asked a moment ago, and none where that would not be enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

IDLE_S: Final = 5.0  # asked for nothing for so long


@dataclass(frozen=True, slots=True)
class Holder:
    """A runner, or who waits for one. files: what it keeps, in bytes. idle_since: Unix seconds; None while it works."""

    identity: str
    files: Mapping[str, int]
    idle_since: float | None = None
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """These are to end, or do already. wait_s: when they will have been idle for long enough; 0 for now."""

    identities: tuple[str, ...]
    wait_s: float = 0.0


def choose(holders: Sequence[Holder], lacking: int, now: float) -> Choice | None:
    """Those that were idle longest, and no more of them than must, to free so many bytes; None where all are too few.

    What a runner has in common with one that stays is not free.
    """
    idle = sorted(
        (each for each in holders if _may_go(each)), key=lambda each: (not each.is_ending, each.idle_since or 0.0)
    )
    chosen = list[Holder]()
    for each in idle:
        if _freed(holders, chosen) >= lacking:
            break
        chosen.append(each)
    if _freed(holders, chosen) < lacking:
        return None
    for each in reversed([each for each in chosen if not each.is_ending]):  # a small old one may have gone in vain
        fewer = [other for other in chosen if other is not each]
        if _freed(holders, fewer) >= lacking:
            chosen = fewer
    wait_s = max(
        (each.idle_since + IDLE_S - now for each in chosen if not each.is_ending and each.idle_since), default=0.0
    )
    return Choice(tuple(each.identity for each in chosen), max(0.0, wait_s))


def _may_go(holder: Holder) -> bool:
    return holder.is_ending or holder.idle_since is not None


def _freed(holders: Sequence[Holder], gone: Collection[Holder]) -> int:
    """Bytes of the files that nobody keeps once those are gone."""
    kept = {path for each in holders if each not in gone for path in each.files}
    return sum({path: size for each in gone for path, size in each.files.items() if path not in kept}.values())
