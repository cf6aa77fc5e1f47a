"""Who is next: those who wait, one of each caller in turn, each caller's in order of arrival."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue that nobody fills for others: whoever has a thousand in it waits for themselves."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __contains__(self, item: object) -> bool:
        return any(item in queue for queue in self._queues.values())

    def __iter__(self) -> Iterator[T]:
        """All that wait, in no promised order."""
        for queue in self._queues.values():
            yield from queue

    def add(self, caller: str, item: T) -> None:
        self._queues.setdefault(caller, deque()).append(item)

    def pop(self) -> T:
        """Take the first; its caller's next one comes after all other callers'."""
        caller, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        self._queues.move_to_end(caller)
        if not queue:
            del self._queues[caller]
        return item

    def remove(self, item: T) -> None:
        """Take `item` out, wherever it is. Raises ValueError where it is not."""
        for caller, queue in self._queues.items():
            if item in queue:
                queue.remove(item)
                if not queue:
                    del self._queues[caller]
                return
        raise ValueError("not waiting")
