"""Transfers that end when somebody's patience does: begun all at once, so that they take the time of one."""

from __future__ import annotations

from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.faults import Holds
from tests.registry.faults.world import JSON, MIB, Model, Registry, World, asks, error_of


@dataclass
class LongOne:
    """A transfer under way: of what, and what it says in the end."""

    registry: Registry
    path: str
    model: Model
    lines: Future[list[JSON]]

    @property
    def error(self) -> str:
        return error_of(self.lines.result(120))


class LongOnes:
    """silent: by make and verb, transfers of which the registry leaves a body lying. deserted: a pull whose registry
    goes away in the middle of a blob, and comes back when the pull has ended.
    """

    def __init__(self, world: World) -> None:
        self._world, self._pool = world, ThreadPoolExecutor(8)
        self.silent: dict[tuple[str, str], LongOne] = {}
        self.deserted: LongOne | None = None

    def __enter__(self) -> Self:
        for registry in self._world.registries.values():
            self.silent[registry.make, "pull"] = self._silent_pull(registry)
            self.silent[registry.make, "push"] = self._silent_push(registry)
        if self._world.lonely is not None:
            self.deserted = self._deserted(self._world.lonely)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for registry in (*self._world.registries.values(), self._world.lonely):
            if registry is not None:
                registry.proxy.release()
        self._pool.shutdown(cancel_futures=True)

    def wait(self) -> None:
        """Until all of them have ended."""
        futures.wait([each.lines for each in (*self.silent.values(), self.deserted) if each is not None], 120)

    def _silent_pull(self, registry: Registry) -> LongOne:
        model = Model((192 * 1024, 100))
        path = registry.offer(model)
        registry.proxy.when(asks("GET", path, model.digests[0]), Holds(100_000))
        return LongOne(registry, path, model, self._pool.submit(self._world.pull, registry, path))

    def _silent_push(self, registry: Registry) -> LongOne:
        model = Model((192 * 1024, 100))
        path = self._world.prepare(registry, model)
        registry.proxy.when(asks("PATCH", path, "/blobs/uploads/"), Holds(100_000))
        return LongOne(registry, path, model, self._pool.submit(self._world.push, registry, path))

    def _deserted(self, registry: Registry) -> LongOne:
        model, holds = Model((12 * MIB,)), Holds(500_000)
        path = registry.offer(model)
        registry.proxy.when(asks("GET", path, model.digests[0]), holds, times=99)

        def pull() -> list[JSON]:
            with ThreadPoolExecutor(1) as pool:
                lines = pool.submit(self._world.pull, registry, path)
                assert holds.is_held.wait(30)
                with registry.proxy.away():
                    holds.release()
                    return lines.result()

        return LongOne(registry, path, model, self._pool.submit(pull))
