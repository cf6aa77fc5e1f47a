"""What is loaded, what goes and who waits. Pure: states in, one decision out; `fleet.py` carries it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import ModelTooLarge, RuntimeFailure
from runtime.supervisor.plan import LoadPlan, is_compatible

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class RunnerState:
    """A runner as the policy sees it. is_leaving: takes no more leases, and ends when those it has are back."""

    identity: str
    path: str
    plan: LoadPlan
    leases: int
    keep_alive_s: float
    is_loading: bool = False
    is_leaving: bool = False
    is_ending: bool = False  # told to end; its memory is not free yet


@dataclass(frozen=True, slots=True)
class Share:
    """Use the runner that is there."""


@dataclass(frozen=True, slots=True)
class Load:
    """Start a runner: it fits."""


@dataclass(frozen=True, slots=True)
class Evict:
    """End these idle runners, then ask again."""

    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done yet. `leaving`: a runner that takes no more leases, so that the wait has an end."""

    leaving: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It will never fit."""

    error: RuntimeFailure


Decision = Share | Load | Evict | Wait | Refuse


def decide(
    identity: str, plan: LoadPlan, runners: Sequence[RunnerState], *, max_loaded: int, budget_bytes: int
) -> Decision:
    """What to do for the request at the head of the queue."""
    own = next((runner for runner in runners if runner.identity == identity), None)
    if own is not None:
        return _decide_own(own, plan)
    if plan.size > budget_bytes:
        return Refuse(
            ModelTooLarge(
                f"model requires more memory ({plan.size / _GIB:.1f} GiB) than the budget allows "
                f"({budget_bytes / _GIB:.1f} GiB)",
                size=plan.size,
                budget=budget_bytes,
            )
        )
    if any(runner.is_loading or runner.is_ending for runner in runners):
        return Wait()  # one at a time: what a loading model takes is known when it is loaded
    return _make_room(plan, runners, max_loaded, budget_bytes)


def may_share(identity: str, plan: LoadPlan, runners: Sequence[RunnerState]) -> bool:
    """Whether a request need not queue at all."""
    return any(
        runner.identity == identity
        and not (runner.is_loading or runner.is_leaving or runner.is_ending)
        and is_compatible(runner.plan, plan)
        for runner in runners
    )


def _decide_own(own: RunnerState, plan: LoadPlan) -> Decision:
    if own.is_loading or own.is_ending:
        return Wait()
    if is_compatible(own.plan, plan) and not own.is_leaving:
        return Share()
    return Wait(leaving=own.identity) if own.leases else Evict((own.identity,))


def _make_room(plan: LoadPlan, runners: Sequence[RunnerState], max_loaded: int, budget_bytes: int) -> Decision:
    """Idle runners go first, those with the shortest keep-alive before others, then by path."""
    by_worth = sorted(runners, key=lambda runner: (_endless(runner.keep_alive_s), runner.path))
    count, taken = len(runners), sum(runner.plan.size for runner in runners)
    victims = []
    for runner in by_worth:
        if _fits(plan, count, taken, max_loaded, budget_bytes):
            break
        if not runner.leases:
            victims.append(runner.identity)
            count, taken = count - 1, taken - runner.plan.size
    if _fits(plan, count, taken, max_loaded, budget_bytes):
        return Evict(tuple(victims)) if victims else Load()
    if any(runner.is_leaving for runner in runners):
        return Wait()
    busy = next((runner for runner in by_worth if runner.leases), None)
    return Wait(leaving=busy.identity if busy else None)


def _fits(plan: LoadPlan, count: int, taken: int, max_loaded: int, budget_bytes: int) -> bool:
    return count < max_loaded and taken + plan.size <= budget_bytes


def _endless(keep_alive_s: float) -> float:
    return math.inf if keep_alive_s < 0 else keep_alive_s
