"""Who goes first, simulated: arrivals, loads and leases on a clock of our own, without processes."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import ModelTooLarge, QueueFull, RuntimeFailure
from runtime.options import LoadOptions
from runtime.supervisor.plan import LoadPlan
from runtime.supervisor.policy import RunnerState
from runtime.supervisor.queue import PASSES, PATIENCE_S, End, Grant, Leave, Limits, Queue, Reject, Rest, Start, Ticket

LOAD_S, END_S = 2.0, 0.1
PLAN = LoadPlan(LoadOptions(), context_length=4096, parallel=1, size=10)


@dataclass(frozen=True)
class Request:
    """Somebody asks for a model at some time, and holds it for so long."""

    model: str
    at: float = 0.0
    caller: str = "x"
    holds_s: float = 1.0
    plan: LoadPlan = PLAN


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
        self.queue.add(Asked(identity=request.model, plan=request.plan, caller=request.caller, request=request))

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
        self.later(self.now + LOAD_S, lambda: self.change(asked.identity, is_loading=False, used_at=self.now))

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


@pytest.mark.parametrize("every_s", [0.0, 0.2, 0.5], ids=["at once", "while it loads", "soon after"])
def test_who_waits_for_one_model_goes_together(every_s: float) -> None:
    simulated = world()

    simulated.run(trace("ABAACABC", every_s=every_s))

    assert simulated.loads == ["A", "B", "C"]
    assert len(simulated.granted) == 8


def test_an_endless_stream_for_one_model_lets_another_in_after_a_while() -> None:
    simulated = world()

    simulated.run([*trace("A" * 100, every_s=0.1, holds_s=1.0), Request("B", at=4.05, caller="x")])

    (waited,) = [asked for asked in simulated.granted if asked.identity == "B"]
    assert waited.overtaken == PASSES
    assert simulated.loads == ["A", "B", "A"]


def test_patience_ends_by_the_clock_too() -> None:
    simulated = world()

    simulated.run([*trace("A" * 30, every_s=1.0, holds_s=2.0), Request("B", at=4.5)])

    (waited,) = [asked for asked in simulated.granted if asked.identity == "B"]
    assert waited.granted_at is not None
    assert 4.5 + PATIENCE_S <= waited.granted_at <= 4.5 + PATIENCE_S + 2.0 + END_S + LOAD_S
    assert 0 < waited.overtaken < PASSES


def test_one_who_asks_for_much_does_not_make_another_wait_for_all_of_it() -> None:
    simulated = world()
    greedy = [Request(f"M{number}", caller="greedy") for number in range(50)]

    simulated.run([*greedy, Request("Z", at=0.1, caller="modest"), Request("Y", at=0.2, caller="other")])

    assert [asked.request.caller for asked in simulated.granted[:4]] == ["greedy", "modest", "other", "greedy"]


def test_callers_with_long_lines_take_turns() -> None:
    simulated = world()
    one = [Request(f"M{number}", caller="one") for number in range(5)]
    two = [Request(f"N{number}", caller="two") for number in range(5)]

    simulated.run([*one, *two])

    assert [asked.request.caller for asked in simulated.granted] == ["one", "two"] * 5


def test_newcomers_cannot_keep_somebody_waiting_for_ever() -> None:
    simulated = world()
    crowd = [Request(f"M{number % 40}", at=number, caller=f"c{number}", holds_s=0.1) for number in range(150)]

    simulated.run([Request("P", caller="me"), Request("Q", caller="me"), *crowd])

    (second,) = [asked for asked in simulated.granted if asked.identity == "Q"]
    assert simulated.granted.index(second) < 40


def test_other_runners_go_on_while_one_makes_room() -> None:
    simulated = world(max_loaded=2)
    streams = trace("AB" * 60, every_s=0.1, holds_s=1.5)

    simulated.run(
        [Request("A"), Request("B"), *(replace(each, at=each.at + 5) for each in streams), Request("C", at=6)]
    )

    assert simulated.loads[:3] == ["A", "B", "C"]
    assert len(simulated.granted) == 123


def test_a_full_queue_refuses_the_newest_and_says_when_to_ask_again() -> None:
    simulated = world(max_queue=2)

    simulated.run(trace("ABC"))

    ((asked, error),) = simulated.refused
    assert (asked.identity, str(error)) == (
        "C", "server busy, please try again.  maximum pending requests exceeded"
    )  # fmt: skip
    assert isinstance(error, QueueFull)
    assert error.detail["retry_after_s"] == 1


def test_in_a_full_queue_the_one_with_most_makes_room_for_another() -> None:
    simulated = world(max_queue=3)

    simulated.run([*trace("ABC", caller="greedy"), Request("D", at=0.1, caller="modest")])

    assert [asked.identity for asked, _ in simulated.refused] == ["C"]
    assert [asked.identity for asked in simulated.granted] == ["A", "D", "B"]


def test_a_loaded_model_is_asked_past_a_full_queue_but_not_without_end() -> None:
    simulated = world(max_queue=3)

    simulated.run(trace("AAAAAA", every_s=0.01, holds_s=50))
    assert [len(simulated.granted), len(simulated.refused)] == [3, 3]

    late = world(max_queue=3)
    late.run([Request("A", holds_s=50), *(Request("A", at=3, holds_s=50) for _ in range(5))])
    assert len(late.granted) == PLAN.parallel + 3
    assert {type(error) for _, error in late.refused} == {QueueFull}
    assert {error.detail["retry_after_s"] for _, error in late.refused} == {2}


def test_what_can_never_fit_waits_for_nobody() -> None:
    simulated = world(budget=100)

    simulated.run([Request("A", holds_s=60), Request("B", at=5, plan=replace(PLAN, size=101)), Request("C", at=6)])

    ((asked, error),) = simulated.refused
    assert (asked.identity, type(error)) == ("B", ModelTooLarge)


def test_other_load_options_wait_for_those_in_use_and_then_load_anew() -> None:
    other = replace(PLAN, context_length=128)
    simulated = world(max_loaded=3)

    simulated.run([Request("A", holds_s=4), Request("A", at=3, plan=other), Request("A", at=3.5)])

    assert [asked.plan.context_length for asked in simulated.granted] == [4096, 4096, 128]
    assert simulated.loads == ["A", "A"]


requests = st.builds(
    Request,
    st.sampled_from("ABC"),
    st.integers(0, 200).map(lambda tenths: tenths / 10),
    st.sampled_from("xyz"),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([PLAN, PLAN, PLAN, replace(PLAN, context_length=128)]),
)


@settings(deadline=None, max_examples=150)
@given(asked=st.lists(requests, max_size=60), max_loaded=st.integers(1, 2))
def test_nobody_waits_for_ever_and_nobody_is_passed_without_end(asked: list[Request], max_loaded: int) -> None:
    simulated = world(max_loaded)

    simulated.run(asked)

    assert len(simulated.granted) == len(asked)
    if max_loaded == 1:
        for each in simulated.granted:
            assert each.passed <= PASSES
            assert each.overtaken <= PASSES
            assert each.headed_s <= PATIENCE_S + 3.0 + END_S + LOAD_S + 1e-6


@settings(deadline=None, max_examples=60)
@given(models=st.lists(st.sampled_from("ABCDE"), max_size=PASSES))
def test_at_once_each_model_is_loaded_once(models: list[str]) -> None:
    simulated = world()

    simulated.run([Request(model) for model in models])

    assert Counter(simulated.loads) == Counter(set(models))
