"""Lanes of the KV cache. A free slot keeps what its last sequence left, for prompts that begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.runner.scheduler import TILE, reusable


@dataclass(slots=True, eq=False)
class Slot:
    """One lane. `tokens` are those whose cells are in the cache, in order of position.

    exact: so many of them were computed with everything before them in place. A context shift drops tokens which
    later ones have already attended to; those that follow are good enough to go on with, but not to begin from.
    untiled: so many of them, from the first on, were computed in slices below a tile.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    exact: int = 0
    untiled: int = 0
    last_used: int = 0
    is_free: bool = True

    def append(self, tokens: Sequence[int]) -> None:
        """More cells are filled."""
        if self.exact == len(self.tokens):
            self.exact += len(tokens)
        if self.untiled == len(self.tokens) and len(tokens) < TILE:
            self.untiled += len(tokens)
        self.tokens += tokens

    def keep(self, count: int) -> None:
        """Only the first `count` cells are left."""
        del self.tokens[count:]
        self.exact, self.untiled = min(self.exact, count), min(self.untiled, count)

    def shift(self, keep: int, dropped: int) -> None:
        """`dropped` cells after the first `keep` are gone, and what followed has moved up."""
        del self.tokens[keep : keep + dropped]
        self.exact, self.untiled = min(self.exact, keep), min(self.untiled, keep)


class Slots:
    """All lanes of one runner."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._clock = 0

    def take(self, prompt: Sequence[int]) -> tuple[Slot, int] | None:
        """The free slot that shares most with `prompt`, and how many tokens it shares; None where all are busy.

        Among equals the one that was idle longest goes, so that recent conversations keep their cells.
        """
        free = [slot for slot in self._slots if slot.is_free]
        if not free:
            return None
        shared = {slot.number: common_prefix(slot.tokens[: slot.exact], prompt) for slot in free}
        best = max(free, key=lambda slot: (shared[slot.number], -slot.last_used))
        best.is_free = False
        return best, reusable(shared[best.number], len(prompt), untiled=best.untiled)

    def give_back(self, slot: Slot) -> None:
        self._clock += 1
        slot.is_free, slot.last_used = True, self._clock


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    length = min(len(left), len(right))
    differs = np.flatnonzero(np.asarray(left[:length], np.int32) != np.asarray(right[:length], np.int32))
    return int(differs[0]) if differs.size else length
