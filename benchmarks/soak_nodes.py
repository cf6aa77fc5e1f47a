"""Three nodes of one PostgreSQL database and one bucket, for ten minutes of everything, beside an oracle.

    python benchmarks/soak_nodes.py --postgresql URL --versitygw PATH [--minutes 10] [--seed N] [--apart]

URL: of a server where databases may be made. Clients spray pushes, pulls, deletes, cancelled and abandoned uploads over
the nodes, while one node after the other is killed with all its processes and started again, web processes stand still
for seconds or for longer than a claim lasts, `tonnage gc` runs on two nodes at a time, and a janitor tidies for whom a
day is a minute. The oracle knows every model that was answered 201 and not deleted since. At the end: each of them can
be pulled whole from every node, each deleted one is gone; after the janitor nothing is left of an upload, and bucket
and rows tell of the same objects; once all models are deleted there are none. No answer but 503 says that something
failed inside. Prints what happened; the exit status is 1 where anything was lost, left or strange.

--apart: each node in a process namespace of its own, as on machines of their own (needs root).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.soak_load import Tally
from benchmarks.soak_nodes_client import GaveUp, Spray
from benchmarks.soak_nodes_fleet import Fleet, fleet_of
from benchmarks.soak_nodes_load import crowd
from benchmarks.soak_nodes_oracle import Checks, Fate, Model
from benchmarks.soak_nodes_tidy import Hurried, left_over, live_bytes, rows_left
from benchmarks.soak_nodes_trouble import Pace, Trouble
from storage.drivers.bucket_settings import BucketSettings
from storage.drivers.s3 import S3Bucket
from tests.s3_server import BUCKET, s3_server

T = TypeVar("T")

NODES: Final = 3
_CHECKERS: Final = 6
_SHOWN: Final = 40  # faults


@dataclass
class Outcome:
    """What happened, and everything that is wrong with it."""

    tally: Tally
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def report(self) -> str:
        lines = [f"{count:8} {what}" for what, count in sorted(self.tally.counts.items()) if count]
        lines += self.lines + [f"WRONG: {fault}" for fault in self.faults[:_SHOWN]]
        return "\n".join([*lines, f"{len(self.faults)} faults"])


@dataclass
class Soak:
    """A fleet, the tokens of its clients, and what they were told so far."""

    fleet: Fleet
    tokens: Sequence[str]
    outcome: Outcome = field(default_factory=lambda: Outcome(Tally()))

    def run(self, seconds: float, *, seed: int, pace: Pace = Pace()) -> Outcome:  # noqa: B008  # a frozen value
        """Soak, look, tidy, look again; then delete everything and look what is left of it."""
        tally, trouble = self.outcome.tally, Trouble(self.fleet, self.outcome.tally, seed, pace)
        self.outcome.lines.append(f"memory at the beginning, MiB: {_sizes(self.fleet.memory())}")
        trouble.begin()
        models = crowd(self.fleet.hosts, self.tokens, tally, seconds=seconds, seed=seed)
        trouble.end()
        self._say_held(trouble)
        self._say_models(models)
        self._everywhere(models, lambda checks, model: checks.whole(model))
        with self.fleet.store() as store:
            bucket = S3Bucket(BucketSettings(BUCKET, endpoint=self.fleet.s3.endpoint))
            self.outcome.lines.append(f"the last janitor took: {Hurried(store).finish()}")
            count, size = live_bytes(store)
            self.outcome.lines.append(f"kept: {count} objects, {size / 2**20:.1f} MiB")
            self.outcome.faults += left_over(store, bucket)
            self._everywhere(models, lambda checks, model: checks.whole(model))
            self._everywhere(_by_repository(models), lambda checks, alike: checks.tags(alike[0].repository, alike))
            self._everywhere(models, _delete, every_node=False)
            Hurried(store).finish()
            self.outcome.faults += left_over(store, bucket) + rows_left(store)
        self.outcome.faults += [f"strange: {each}" for each in tally.strange] + self.fleet.logged()
        return self.outcome

    def _everywhere(self, each: Sequence[T], check: Callable[[Checks, T], None], *, every_node: bool = True) -> None:
        """`check` each of them at every node, or at any."""
        places = [[host] for host in self.fleet.hosts] if every_node else [self.fleet.hosts]
        draw = random.Random(0)
        with ThreadPoolExecutor(_CHECKERS) as pool:
            futures = [
                pool.submit(check, Checks(Spray(hosts, self.tokens[0], self.outcome.tally, draw)), one)
                for hosts in places
                for one in each
            ]
            for future in futures:
                try:
                    future.result()
                except GaveUp as error:
                    self.outcome.faults.append(f"gave up: {error}")

    def _say_held(self, trouble: Trouble) -> None:
        say = self.outcome.lines.append
        say(f"memory at the end, MiB: {_sizes(self.fleet.memory())}")
        say(f"memory at most, MiB: {_sizes(trouble.memory)}")
        say(f"connections to PostgreSQL at most: {trouble.connections}")

    def _say_models(self, models: Sequence[Model]) -> None:
        counts = {fate.value: sum(model.fate is fate for model in models) for fate in Fate}
        self.outcome.lines.append(f"models: {counts}")


def _by_repository(models: Sequence[Model]) -> list[list[Model]]:
    names = sorted({model.repository for model in models})
    return [[model for model in models if model.repository == name] for name in names]


def _delete(checks: Checks, model: Model) -> None:
    checks.spray.ask("DELETE", f"/v2/{model.repository}/manifests/{model.digest}")


def _sizes(memory: dict[str, float]) -> str:
    return ", ".join(f"{role} {size:.0f}" for role, size in sorted(memory.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", metavar="URL", required=True)
    parser.add_argument("--versitygw", metavar="PATH", required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of what clients do; when they do it is up to the machine")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave the logs")
    given = parser.parse_args()
    if not 0 < given.minutes <= 24 * 60 or not 1 <= given.clients <= 64:
        parser.error("from a moment to a day, with 1 to 64 clients")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tonnage-soak-") as folder:
        where = given.keep or Path(folder)
        with (
            s3_server(where / "s3", command=given.versitygw) as s3,
            fleet_of(NODES, where, given.postgresql, s3, is_apart=given.apart) as fleet,
        ):
            outcome = Soak(fleet, fleet.tokens(given.clients)).run(given.minutes * 60, seed=given.seed)
    print(outcome.report())
    print(f"{time.monotonic() - begun:.0f} s in all")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
