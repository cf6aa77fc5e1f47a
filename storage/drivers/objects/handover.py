"""What a writer leaves in memory for the publishing that follows at once, and so need not be stored twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import Desk
from storage.drivers.objects.parts import Staged, part_size
from storage.drivers.objects.seekable import near

_KEPT_S: Final = 600.0  # whoever did not publish by then will not


@dataclass(frozen=True, slots=True)
class Handover:
    """Parts, the last of which may be short; or parts and pieces, and a few bytes after them that lie nowhere else.

    has_record: whether the writer ever made one.
    """

    staged: Staged
    last: bytes
    has_record: bool
    at: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        return self.staged.end + len(self.last)

    def save(self, desk: Desk) -> Staged:
        """Make a record of it after all, as far as more can follow: nothing can follow a short part."""
        staged, end = self.staged, self.staged.end
        if staged.parts and staged.parts[-1].size < part_size(staged.parts[-1].number):
            staged.parts.pop()
        elif self.last:
            desk.add(staged, near(self.last), end, len(self.last))
        staged.sync()
        desk.record(staged)
        return staged


class Handovers:
    """Those that nobody has come for yet, each for who has the handle of the writer that left it."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str | None], Handover] = {}

    def leave(self, handle: Handle, handover: Handover) -> None:
        self._forget(lambda key, found: found.at < handover.at - _KEPT_S)
        self._left[handle.key, handle.writer] = handover

    def take(self, handle: Handle) -> Handover | None:
        return self._left.pop((handle.key, handle.writer), None)

    def drop(self, key: str) -> None:
        self._forget(lambda theirs, found: theirs == key)

    def _forget(self, is_past: Callable[[str, Handover], bool]) -> None:
        for (key, writer), found in list(self._left.items()):
            if is_past(key, found):
                self._left.pop((key, writer), None)
