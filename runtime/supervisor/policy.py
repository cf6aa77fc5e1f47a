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
    """A runner as the policy sees it.

    plan: as it was loaded, with the bytes it was found to take. used_at: when its last lease began or ended.
    is_leaving: takes no more leases, and ends when those it has are back.
    """

    identity: str
    path: str
    plan: LoadPlan
    leases: int
    keep_alive_s: float
    is_loading: bool = False
    is_leaving: bool = False
    is_ending: bool = False  # told to end; its memory is not free yet
    used_at: float = 0.0


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
    identity: str,
    plan: LoadPlan,
    runners: Sequence[RunnerState],
    *,
    max_loaded: int,
    budget_bytes: int,
    vram_bytes: int = 0,
) -> Decision:
    """What to do for the request at the head of the queue.

    budget_bytes: of the machine's memory; vram_bytes: of all accelerators together. A runner takes of both.
    """
    own = next((runner for runner in runners if runner.identity == identity), None)
    if own is not None and may_share(identity, plan, (own,)):
        return Share()
    room = _Room(max_loaded, budget_bytes, vram_bytes)
    if not room.is_enough(plan, ()):
        return Refuse(_too_large(plan, budget_bytes, vram_bytes))
    if own is not None:
        return _replace(own)
    if any(runner.is_loading or runner.is_ending for runner in runners):
        return Wait()  # one at a time: what a loading model takes is known when it is loaded
    return _make_room(plan, runners, room)


def may_share(identity: str, plan: LoadPlan, runners: Sequence[RunnerState]) -> bool:
    """Whether a request need not wait for a load."""
    return any(
        runner.identity == identity
        and not (runner.is_loading or runner.is_leaving or runner.is_ending)
        and is_compatible(runner.plan, plan)
        for runner in runners
    )


@dataclass(frozen=True, slots=True)
class _Room:
    """All there is."""

    max_loaded: int
    budget_bytes: int
    vram_bytes: int

    def is_enough(self, plan: LoadPlan, others: Sequence[RunnerState]) -> bool:
        """Whether `plan` fits beside `others`."""
        plans = [plan, *(runner.plan for runner in others)]
        return (
            len(plans) <= self.max_loaded
            and sum(each.size - each.size_vram for each in plans) <= self.budget_bytes
            and sum(each.size_vram for each in plans) <= self.vram_bytes
        )


def _replace(own: RunnerState) -> Decision:
    """It is loaded, but not as it is wanted."""
    if own.is_loading or own.is_ending:
        return Wait()
    return Wait(leaving=own.identity) if own.leases else Evict((own.identity,))


def _make_room(plan: LoadPlan, runners: Sequence[RunnerState], room: _Room) -> Decision:
    """Idle runners go, the least recently used first, and of them no more than must."""
    by_worth = sorted(runners, key=_worth)
    kept = list(by_worth)
    victims: list[RunnerState] = []
    for runner in by_worth:
        if room.is_enough(plan, kept):
            break
        if not runner.leases:
            kept.remove(runner)
            victims.append(runner)
    if room.is_enough(plan, kept):
        for runner in reversed(victims):  # a small old one may have gone in vain before a large one made the room
            if room.is_enough(plan, [*kept, runner]):
                kept.append(runner)
                victims.remove(runner)
        return Evict(tuple(runner.identity for runner in victims)) if victims else Load()
    if any(runner.is_leaving for runner in runners):
        return Wait()
    busy = next((runner for runner in by_worth if runner.leases), None)
    return Wait(leaving=busy.identity if busy else None)


def _worth(runner: RunnerState) -> tuple[float, float, str]:
    """The least recently used goes first, then what would go soonest.

    What is to stay for ever goes like the others where room is needed: anybody may ask for that, and else a few who do
    would take the places of all.
    """
    return runner.used_at, math.inf if runner.keep_alive_s < 0 else runner.keep_alive_s, runner.path


def _too_large(plan: LoadPlan, budget_bytes: int, vram_bytes: int) -> ModelTooLarge:
    host = plan.size - plan.size_vram
    if host > budget_bytes:
        return ModelTooLarge(
            f"model requires more memory ({host / _GIB:.1f} GiB) than the budget allows "
            f"({budget_bytes / _GIB:.1f} GiB)",
            size=host,
            budget=budget_bytes,
        )
    return ModelTooLarge(
        f"model requires more accelerator memory ({plan.size_vram / _GIB:.1f} GiB) than there is "
        f"({vram_bytes / _GIB:.1f} GiB)",
        size=plan.size_vram,
        budget=vram_bytes,
    )
