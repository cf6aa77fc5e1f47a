"""The queue simulated: arrivals, loads and leases on a clock of our own, without processes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from runtime.errors import RuntimeFailure
from runtime.options import LoadOptions
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.policy import RunnerState
from runtime.supervisor.queue import End, Grant, Leave, Limits, Queue, Reject, Rest, Start, Stay, Ticket

LOAD_S, END_S = 2.0, 0.1
PLAN = LoadPlan(LoadOptions(), context_length=4096, parallel=1, size=10)


@dataclass(frozen=True)
class Request:
    """Somebody asks for a model at some time, and holds it for so long. gives_up_s: after so long in line."""

    model: str
    at: float = 0.0
    caller: str = "x"
    holds_s: float = 1.0
    plan: LoadPlan = PLAN
    gives_up_s: float | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Asked(Ticket):
    request: Request
    granted_at: float | None = None
    headed_s: float = 0.0
    overtaken: int = 0


@dataclass
class World:
    """Does what the queue says, as the fleet does."""

    limits: Limits
    now: float = 0.0
    loads: list[str] = field(default_factory=list)
    granted: list[Asked] = field(default_factory=list)
    refused: list[tuple[Asked, RuntimeFailure]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue: Queue[Asked] = Queue(self.limits)
        self.runners: dict[str, RunnerState] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()

    def run(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.later(request.at, lambda request=request: self.arrive(request))  # type: ignore[misc]
        while self.events:
            at, _, happen = heapq.heappop(self.events)
            head = next(iter(self.queue), None)
            if head is not None:
                head.headed_s += at - self.now
            self.now = at
            happen()
            self.pump()
            while (overflow := self.queue.overflow()) is not None:
                self.refused.append((overflow.ticket, overflow.error))

    def later(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), happen))

    def arrive(self, request: Request) -> None:
        asked = Asked(identity=request.model, plan=request.plan, caller=request.caller, request=request)
        self.queue.add(asked)
        if request.gives_up_s is not None:
            self.later(self.now + request.gives_up_s, lambda: self.give_up(asked))

    def give_up(self, asked: Asked) -> None:
        """As the fleet does where a client hangs up: what is loaded for nobody else goes."""
        if asked not in self.queue:
            return
        self.queue.remove(asked)
        runner = self.runners.get(asked.identity)
        if runner is not None and runner.is_loading and all(other.identity != asked.identity for other in self.queue):
            self.end(asked.identity)

    def pump(self) -> None:
        while True:
            line = list(self.queue)
            match self.queue.step(list(self.runners.values()), self.now):
                case Grant(asked):
                    for passed in line[: line.index(asked)]:
                        passed.overtaken += 1
                    self.grant(asked)
                case Reject(asked, error):
                    self.refused.append((asked, error))
                case Start(asked):
                    self.load(asked)
                case End(models):
                    for model in models:
                        self.end(model)
                case Leave(model):
                    assert self.runners[model].leases
                    assert not self.runners[model].is_leaving
                    self.change(model, is_leaving=True)
                case Stay(model):
                    assert self.runners[model].leases
                    assert self.runners[model].is_leaving
                    self.change(model, is_leaving=False)
                case Rest(until):
                    if until is not None:
                        assert until > self.now
                        self.later(until, lambda: None)
                    return

    def change(self, model: str, **facts: object) -> None:
        self.runners[model] = replace(self.runners[model], **facts)  # type: ignore[arg-type]

    def load(self, asked: Asked) -> None:
        assert len(self.runners) < self.limits.max_loaded
        self.loads.append(asked.identity)
        self.runners[asked.identity] = RunnerState(
            asked.identity, asked.identity, asked.plan, 0, 300, is_loading=True, used_at=self.now
        )
        self.later(self.now + LOAD_S, lambda: self.loaded(asked.identity))

    def loaded(self, model: str) -> None:
        runner = self.runners.get(model)
        if runner is not None and not runner.is_ending:
            self.change(model, is_loading=False, used_at=self.now)

    def grant(self, asked: Asked) -> None:
        runner = self.runners[asked.identity]
        assert not (runner.is_loading or runner.is_leaving or runner.is_ending)
        asked.granted_at = self.now
        self.granted.append(asked)
        self.change(asked.identity, leases=runner.leases + 1, used_at=self.now)
        self.later(self.now + asked.request.holds_s, lambda: self.release(asked.identity))

    def release(self, model: str) -> None:
        runner = self.runners[model]
        self.change(model, leases=runner.leases - 1, used_at=self.now)
        if runner.leases == 1 and runner.is_leaving:
            self.end(model)

    def end(self, model: str) -> None:
        assert not self.runners[model].leases
        self.change(model, is_ending=True)
        self.later(self.now + END_S, lambda: self.runners.pop(model) and None)


def world(max_loaded: int = 1, max_queue: int = 512, budget: int = 100) -> World:
    return World(Limits(max_loaded, max_queue, budget))


def trace(models: str, *, every_s: float = 0.0, **facts: object) -> list[Request]:
    return [Request(model, at=number * every_s, **facts) for number, model in enumerate(models)]  # type: ignore[arg-type]
