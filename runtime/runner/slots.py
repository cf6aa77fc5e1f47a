"""Lanes of the KV cache. A free slot keeps what its last sequence left, for prompts of its caller that begin alike.

Pure: the numbers of lanes and what to do with them come out; `engine.py` tells llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.runner.prefixes import Prefixes
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
    caller: str = ""

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


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot for a prompt, whose first `shared` tokens need not be computed.

    source: the slot whose lane is to be copied into this one first; None where it has those tokens itself.
    """

    slot: Slot
    shared: int
    source: Slot | None = None


class Slots:
    """All lanes of one runner."""

    def __init__(self, count: int, *, copies: bool = True) -> None:
        """copies: whether the cells of one lane can become those of another."""
        self._slots = [Slot(number) for number in range(count)]
        self._prefixes = Prefixes()
        self._copies = copies
        self._clock = 0

    @property
    def has_free(self) -> bool:
        return any(slot.is_free for slot in self._slots)

    def take(self, prompt: Sequence[int], caller: str = "") -> Taken | None:
        """A free slot for `prompt`, chosen so that little is computed and little of what may be useful is lost.

        None where all are busy. The lane that has most of the prompt is taken where that costs it little of its own
        or no other is free; else what it has is copied into the lane that was idle longest.
        """
        oldest = min((slot for slot in self._slots if slot.is_free), key=_idle_longest, default=None)
        if oldest is None:
            return None
        taken = self._best(list(prompt), caller, oldest) or Taken(oldest, 0)
        slot, source = taken.slot, taken.source
        if source is not None:
            slot.tokens, slot.exact, slot.untiled = list(source.tokens), source.exact, source.untiled
        slot.keep(taken.shared)
        slot.is_free, slot.caller = False, caller
        self.note(slot)
        return taken

    def forget(self, slot: Slot) -> None:
        """The lane holds nothing any more."""
        slot.keep(0)
        self.note(slot)

    def note(self, slot: Slot) -> None:
        """Let other prompts find what `slot` holds now. What it gets after this is found once it is noted again."""
        self._prefixes.put(slot.number, slot.caller, slot.tokens[: slot.exact])

    def give_back(self, slot: Slot) -> None:
        self._clock += 1
        slot.is_free, slot.last_used = True, self._clock
        self.note(slot)

    def _best(self, prompt: list[int], caller: str, oldest: Slot) -> Taken | None:
        own = self._have(oldest, prompt, caller)
        for match in self._prefixes.matches(caller, prompt):
            lanes = [self._slots[number] for number in match.lanes]
            shared = {slot.number: _reusable(slot, match.length, prompt) for slot in lanes}
            free = [slot for slot in lanes if slot.is_free and shared[slot.number]]
            direct = min(free, key=lambda slot: (len(slot.tokens), slot.last_used), default=None)
            if direct is not None and self._is_cheap(direct, shared[direct.number], oldest):
                return Taken(direct, shared[direct.number])
            source = max(lanes, key=lambda slot: shared[slot.number])
            if self._copies and source is not oldest and shared[source.number] - own >= TILE:
                return Taken(oldest, shared[source.number], source)
            if direct is not None:
                return Taken(direct, shared[direct.number])
        return None

    def _have(self, slot: Slot, prompt: list[int], caller: str) -> int:
        """How much of `prompt` the lane of `slot` has."""
        for match in self._prefixes.matches(caller, prompt):
            if slot.number in match.lanes:
                return _reusable(slot, match.length, prompt)
        return 0

    def _is_cheap(self, slot: Slot, shared: int, oldest: Slot) -> bool:
        """Whether going on in the lane itself loses less than it saves to copy."""
        return slot is oldest or not self._copies or 2 * (len(slot.tokens) - shared) <= shared or shared < TILE


def _idle_longest(slot: Slot) -> tuple[int, int]:
    return slot.last_used, slot.number


def _reusable(slot: Slot, length: int, prompt: list[int]) -> int:
    return reusable(min(length, slot.exact), len(prompt), untiled=slot.untiled)
