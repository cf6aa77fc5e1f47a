"""Lanes of the KV cache. A free slot keeps what its last sequence left, for prompts of its caller that begin alike.

Pure: the numbers of lanes and what to do with them come out; `engine.py` tells llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.runner.prefixes import Prefixes
from runtime.runner.scheduler import TILE, reusable

_LANE_PER_TOKEN = 64  # to copy so many tokens' cells takes about as long as to compute one
_LANE_PER_STEP = 1024  # to copy so many takes about what a step loses by a gap


@dataclass(slots=True, eq=False)
class Slot:
    """What one sequence has in the cache. `tokens` are those whose cells are there, in order of position.

    number: of the lane where they are; it changes when they are moved.
    exact: so many of them were computed with everything before them in place. A context shift drops tokens which
    later ones have already attended to; those that follow are good enough to go on with, but not to begin from.
    untiled, tiled: so many of them, from the first on, were computed in slices below a tile, or of at least one.
    """

    id: int
    number: int
    tokens: list[int] = field(default_factory=list)
    exact: int = 0
    untiled: int = 0
    tiled: int = 0
    last_used: int = 0
    is_free: bool = True
    caller: str = ""

    def append(self, tokens: Sequence[int]) -> None:
        """More cells are filled."""
        if self.exact == len(self.tokens):
            self.exact += len(tokens)
        if self.untiled == len(self.tokens) and len(tokens) < TILE:
            self.untiled += len(tokens)
        if self.tiled == len(self.tokens) and len(tokens) >= TILE:
            self.tiled += len(tokens)
        self.tokens += tokens

    def keep(self, count: int) -> None:
        """Only the first `count` cells are left."""
        del self.tokens[count:]
        self._only(count)

    def shift(self, keep: int, dropped: int) -> None:
        """`dropped` cells after the first `keep` are gone, and what followed has moved up."""
        del self.tokens[keep : keep + dropped]
        self._only(keep)

    def take_over(self, other: Slot) -> None:
        """Have what `other` has."""
        self.tokens = list(other.tokens)
        self.exact, self.untiled, self.tiled = other.exact, other.untiled, other.tiled

    def _only(self, count: int) -> None:
        """What is known of the cells after the first `count` holds no more."""
        self.exact, self.untiled, self.tiled = (min(known, count) for known in (self.exact, self.untiled, self.tiled))


def _always(_number: int, _length: int) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Copy:
    """Let the lane `target` hold what `source` holds."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot for a prompt, whose first `shared` tokens need not be computed once `copies` are made, in their order."""

    slot: Slot
    shared: int
    copies: tuple[Copy, ...] = ()


class Slots:
    """All lanes of one runner.

    llama.cpp computes lanes together that are neighbours; each gap between those that are at work costs a pass over the
    weights in every step. So sequences are put, and moved, side by side, and what free lanes hold makes room for them.
    """

    def __init__(
        self, count: int, *, lane_tokens: int = 0, copies: bool = True, reaches: Callable[[int, int], bool] = _always
    ) -> None:
        """lane_tokens: how many each lane has room for. copies: whether the cells of one can become another's.

        reaches: whether a lane, by its number, can be cut to a length and go on from there.
        """
        self._slots = [Slot(number, number) for number in range(count)]
        self._prefixes = Prefixes()
        self._copies = copies
        self._reaches = reaches
        self._worth = max(TILE, lane_tokens // _LANE_PER_TOKEN)  # tokens; for fewer a lane is not copied
        self._patience, self._apart = lane_tokens // _LANE_PER_STEP, 0
        self._clock = 0

    @property
    def has_free(self) -> bool:
        return any(slot.is_free for slot in self._slots)

    def take(self, prompt: Sequence[int], caller: str = "") -> Taken | None:
        """A free slot for `prompt`, chosen so that little is computed and little of what may be useful is lost.

        None where all are busy. The lane that has most of the prompt is taken where that costs it little of its own;
        else what it has is copied beside the lanes that are at work.
        """
        if not self.has_free:
            return None
        taken = self._best(list(prompt), caller)
        slot = taken.slot
        slot.keep(taken.shared)
        slot.is_free, slot.caller = False, caller
        self.note(slot)
        return taken

    def compact(self) -> list[Copy]:
        """Bring the lanes that are at work side by side, with as few copies as can be. The copies to make, in order.

        Called once a step. Gaps that have just come are left: what makes one may be over as soon as the copies are.
        """
        busy = {slot.number: slot for slot in self._slots if not slot.is_free}
        self._apart = self._apart + 1 if busy and max(busy) - min(busy) >= len(busy) else 0
        if not self._copies or self._apart <= self._patience:
            return []
        self._apart = 0
        starts = range(len(self._slots) - len(busy) + 1)
        start = max(starts, key=lambda start: sum(start <= number < start + len(busy) for number in busy))
        wanted = range(start, start + len(busy))
        moving = [slot for number, slot in busy.items() if number not in wanted]
        copies: list[Copy] = []
        for slot, number in zip(moving, [number for number in wanted if number not in busy], strict=True):
            room = self._vacate(self._at(number), copies)
            copies.append(Copy(slot.number, room.number))
            slot.number, room.number = room.number, slot.number
        return copies

    def forget(self, slot: Slot) -> None:
        """The lane holds nothing any more."""
        slot.keep(0)
        self.note(slot)

    def note(self, slot: Slot) -> None:
        """Let other prompts find what `slot` holds now. What it gets after this is found once it is noted again."""
        self._prefixes.put(slot.id, slot.caller, slot.tokens[: slot.exact])

    def give_back(self, slot: Slot) -> None:
        self._clock += 1
        slot.is_free, slot.last_used = True, self._clock
        self.note(slot)

    def _best(self, prompt: list[int], caller: str) -> Taken:
        for match in self._prefixes.matches(caller, prompt):
            shared = {
                slot: self._usable(slot, match.length, prompt) for slot in map(self._slots.__getitem__, match.lanes)
            }
            direct = [slot for slot in shared if slot.is_free and self._is_cheap(slot, shared[slot])]
            if direct:
                slot = min(direct, key=lambda slot: (len(slot.tokens), slot.last_used))
                return Taken(slot, shared[slot])
            source = max(shared, key=lambda slot: shared[slot])
            if self._copies and shared[source] >= self._worth:
                return self._copied(source, shared[source])
        copies: list[Copy] = []
        room = self._vacate(self._beside_others(), copies)
        return Taken(room, 0, tuple(copies))

    def _usable(self, slot: Slot, length: int, prompt: list[int]) -> int:
        """How much of a match of `length` tokens saves computing."""
        shared = reusable(min(length, slot.exact), len(prompt), untiled=slot.untiled, tiled=slot.tiled)
        return shared if shared and self._reaches(slot.number, shared) else 0

    def _copied(self, source: Slot, shared: int) -> Taken:
        """What `source` holds, in a free lane of another slot; in its own where that is the one to be given up."""
        if source is self._oldest():
            return Taken(source, shared)
        copies: list[Copy] = []
        room = self._vacate(self._beside_others(but=source), copies)
        copies.append(Copy(source.number, room.number))
        room.take_over(source)
        return Taken(room, shared, tuple(copies))

    def _vacate(self, slot: Slot, copies: list[Copy]) -> Slot:
        """A free slot that holds nothing, in the lane of `slot`. What that holds goes to the lane idle longest."""
        oldest = self._oldest()
        if slot is oldest or not self._copies or len(slot.tokens) < self._worth:
            self.forget(slot)
            return slot
        copies.append(Copy(slot.number, oldest.number))
        slot.number, oldest.number = oldest.number, slot.number
        self.forget(oldest)
        return oldest

    def _beside_others(self, but: Slot | None = None) -> Slot:
        """The free slot whose lane is nearest to those at work; the one idle longest where none is at work."""
        busy = [slot.number for slot in self._slots if not slot.is_free]
        free = [slot for slot in self._slots if slot.is_free and slot is not but]
        if not self._copies:
            busy = []

        def distance(slot: Slot) -> tuple[int, int, int]:
            near = min((abs(slot.number - number) for number in busy), default=0)
            return near, *_idle_longest(slot)

        return min(free, key=distance)

    def _oldest(self) -> Slot:
        """The free slot that was idle longest."""
        return min((slot for slot in self._slots if slot.is_free), key=_idle_longest)

    def _at(self, number: int) -> Slot:
        return next(slot for slot in self._slots if slot.number == number)

    def _is_cheap(self, slot: Slot, shared: int) -> bool:
        """Whether to go on in the lane itself loses little of what it has, or what would be lost next anyway."""
        return shared > 0 and (2 * (len(slot.tokens) - shared) <= shared or slot is self._oldest())


def _idle_longest(slot: Slot) -> tuple[int, int]:
    return slot.last_used, slot.number
