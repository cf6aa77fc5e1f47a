"""Who waits for a model, in which order, and for whom room is made.

Holds no process and no clock: `step` is told the runners and the time, and says one thing to do; `fleet.py` does it.

Callers take turns, so one who asks for much does not make the others wait for all of it. Requests that share a loaded
runner go past whoever waits for another model, since loading costs more than an answer, but not without end: after
`PASSES` of them, or `PATIENCE_S`, the runner in the way takes no more and makes room; it takes more again where the
one it makes room for gives up.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from runtime.errors import QueueFull, RuntimeFailure
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.policy import Decision, Evict, Load, Refuse, RunnerState, Share, Wait, decide, may_share

PASSES = 16  # grants of one load that may go past a request for another
PATIENCE_S = 5.0  # how long the first in line lets the busy runner in its way take more
_QUEUE_FULL = "server busy, please try again.  maximum pending requests exceeded"
_LONGEST_RETRY_S = 60
_NEWEST_SHARE = 0.3  # of the newest duration in the running mean


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket:
    """A request whose model is not there yet.

    turn: its place; the n-th request of a caller comes after the (n-1)-th of the others. passed: how many shared a
    loaded runner past it. blocked_at: since when it is first in line and only busy runners are in its way.
    """

    identity: str
    plan: LoadPlan
    caller: str = ""
    turn: float = 0.0
    passed: int = 0
    blocked_at: float | None = None


T = TypeVar("T", bound=Ticket)


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is: places for models and for who waits, bytes of memory and of accelerators."""

    max_loaded: int
    max_queue: int
    budget_bytes: int
    vram_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Grant(Generic[T]):
    """Give it the runner of its model."""

    ticket: T


@dataclass(frozen=True, slots=True)
class Reject(Generic[T]):
    """Tell it why not."""

    ticket: T
    error: RuntimeFailure


@dataclass(frozen=True, slots=True)
class Start(Generic[T]):
    """Start a runner for it; it stays in line until that is loaded."""

    ticket: T


@dataclass(frozen=True, slots=True)
class End:
    """End these idle runners."""

    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """This busy runner takes no more requests, and ends after those it has."""

    identity: str


@dataclass(frozen=True, slots=True)
class Stay:
    """This runner was to leave for somebody who needs it no more: it takes requests again."""

    identity: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing more can be done before something changes, or before `until`."""

    until: float | None = None


Step = Grant[T] | Reject[T] | Start[T] | End | Leave | Stay | Rest


class Queue(Generic[T]):
    """In order of turns. What `step` grants or rejects is no longer in it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: list[T] = []
        self._newest: T | None = None
        self._leaving: dict[str, T] = {}  # runners that were told to, and for whom
        self._turn = 0.0
        self._load_s = self._lease_s = 1.0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._waiting))

    def __contains__(self, ticket: T) -> bool:
        return ticket in self._waiting

    def add(self, ticket: T) -> None:
        """Put it in line. Once nothing more can be granted, `overflow` tells whether that was one too many."""
        own = [other.turn for other in self._waiting if other.caller == ticket.caller]
        ticket.turn = max(self._turn, max(own) + 1 if own else 0.0)
        insort(self._waiting, ticket, key=lambda each: each.turn)  # behind its equals: they came first
        self._newest = ticket

    def remove(self, ticket: T) -> None:
        """Take it out, whoever did it."""
        self._waiting.remove(ticket)
        if self._newest is ticket:
            self._newest = None

    def dismiss(self, identity: str) -> None:
        """That runner leaves whoever waits: somebody asked for it."""
        self._leaving.pop(identity, None)

    def overflow(self) -> Reject[T] | None:
        """Where more wait than may: the newest request, unless another caller has more in line: then its last one."""
        if len(self._waiting) <= self._limits.max_queue:
            return None
        counts = Counter(ticket.caller for ticket in self._waiting)
        newest = self._newest or self._waiting[-1]
        greediest = max(counts, key=lambda caller: (counts[caller], caller == newest.caller))
        last = next(ticket for ticket in reversed(self._waiting) if ticket.caller == greediest)
        leaves = newest if greediest == newest.caller else last
        self.remove(leaves)
        groups = len({ticket.identity for ticket in self._waiting})
        return Reject(leaves, QueueFull(_QUEUE_FULL, retry_after_s=_retry_after_s(groups * self._load_s)))

    def saw_load(self, seconds: float) -> None:
        """A load took so long."""
        self._load_s += (seconds - self._load_s) * _NEWEST_SHARE

    def saw_lease(self, seconds: float) -> None:
        """A lease was held so long."""
        self._lease_s += (seconds - self._lease_s) * _NEWEST_SHARE

    def step(self, runners: Sequence[RunnerState], now: float) -> Step[T]:
        """The next thing to do; ask again after it until the answer is Rest."""
        unneeded = self._unneeded(runners)
        if unneeded is not None:
            return Stay(unneeded)
        return self._serve(self._waiting[0], runners, now) if self._waiting else Rest()

    def _serve(self, head: T, runners: Sequence[RunnerState], now: float) -> Step[T]:
        """The next thing to do for the first in line, or for those who may go past it."""
        decision = self._decide(head, runners)
        if isinstance(decision, Share | Refuse):
            self._advance(head)
            return Reject(head, decision.error) if isinstance(decision, Refuse) else self._granted(head, runners)
        busy = _in_the_way(decision, runners)
        if busy is not None and head.blocked_at is None:
            head.blocked_at = now
        is_patient = head.blocked_at is None or now < head.blocked_at + PATIENCE_S
        harms = busy is not None or isinstance(decision, Evict)  # where nothing can be done anyway, nobody is harmed
        sharer, place, is_out_of_turn = self._sharer(runners, is_patient=is_patient)
        if sharer is not None and not (harms and is_out_of_turn):
            for other in self._waiting[:place] if harms else ():
                other.passed += 1
            self.remove(sharer)
            return self._granted(sharer, runners)
        if isinstance(decision, Load):
            return Start(head)
        if isinstance(decision, Evict):
            return End(decision.identities)
        waits = _wait(head, busy, is_over=sharer is not None or not is_patient)
        if isinstance(waits, Leave):
            self._leaving[waits.identity] = head
        return waits

    def _decide(self, head: T, runners: Sequence[RunnerState]) -> Decision:
        limits = self._limits
        return decide(
            head.identity, head.plan, runners,
            max_loaded=limits.max_loaded, budget_bytes=limits.budget_bytes, vram_bytes=limits.vram_bytes,
        )  # fmt: skip

    def _unneeded(self, runners: Sequence[RunnerState]) -> str | None:
        """A runner that leaves for somebody who gave up, or got another's place, and in whose way it is not."""
        states = {runner.identity: runner for runner in runners}
        for identity, ticket in tuple(self._leaving.items()):
            state = states.get(identity)
            if state is None or state.is_ending or not state.is_leaving:
                del self._leaving[identity]
                continue
            has_place = ticket.identity != identity and ticket.identity in states
            if ticket in self._waiting and not has_place:
                continue
            staying = [replace(each, is_leaving=False) if each is state else each for each in runners]
            heir = self._waiting[0] if self._waiting else None
            if heir is not None and _in_the_way(self._decide(heir, staying), staying) == identity:
                self._leaving[identity] = heir
                continue
            del self._leaving[identity]
            return identity
        return None

    def _sharer(self, runners: Sequence[RunnerState], *, is_patient: bool) -> tuple[T | None, int, bool]:
        """The first in line whose model is there, its place, and whether those before it have been passed enough."""
        open_runners = {runner.identity: runner for runner in runners}
        is_out_of_turn = not is_patient
        for place, ticket in enumerate(self._waiting):
            runner = open_runners.get(ticket.identity)
            if runner is not None and may_share(ticket.identity, ticket.plan, (runner,)):
                return ticket, place, is_out_of_turn
            is_out_of_turn = is_out_of_turn or ticket.passed >= PASSES
        return None, 0, False

    def _granted(self, ticket: T, runners: Sequence[RunnerState]) -> Grant[T] | Reject[T]:
        """The grant, unless as many as may be have the runner already."""
        runner = next(runner for runner in runners if runner.identity == ticket.identity)
        if runner.leases < runner.plan.parallel + self._limits.max_queue:
            return Grant(ticket)
        wait_s = self._lease_s * runner.leases / runner.plan.parallel
        return Reject(ticket, QueueFull(_QUEUE_FULL, retry_after_s=_retry_after_s(wait_s)))

    def _advance(self, head: T) -> None:
        """Its turn is over: whoever comes next comes after it, and a caller who is new after those of this round."""
        callers = len({ticket.caller for ticket in self._waiting})
        self._turn = max(self._turn + 1 / callers, head.turn)
        self.remove(head)


def _in_the_way(decision: Decision, runners: Sequence[RunnerState]) -> str | None:
    """The busy runner that would have to go, if none goes already."""
    busy = decision.leaving if isinstance(decision, Wait) else None
    return None if any(runner.identity == busy and runner.is_leaving for runner in runners) else busy


def _wait(head: Ticket, busy: str | None, *, is_over: bool) -> Leave | Rest:
    if busy is None or head.blocked_at is None:
        return Rest()
    return Leave(busy) if is_over else Rest(head.blocked_at + PATIENCE_S)


def _retry_after_s(drained_s: float) -> int:
    """When to ask again, of a line that is gone after so long: half way, since all who were refused come back."""
    return min(max(math.ceil(drained_s / 2), 1), _LONGEST_RETRY_S)
