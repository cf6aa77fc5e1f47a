"""How often, and after what pause, a cut transfer is taken up again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from registry.remotes.errors import RemoteError, ServerBusy

PROGRESS_BYTES = 1024 * 1024  # less than that between two cuts does not count: a byte a try could go on for ever
MAX_PAUSE_S = 30.0


class Retry:
    """Counts attempts without progress; pauses double and are jittered, so that many clients do not return at once."""

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = lambda line: None,
        patience: int = 1_000,
    ) -> None:
        """patience: at most so many attempts, however many the error would have."""
        self._patience = patience
        self._first_s = first_s
        self._sleep = sleep
        self._tell = tell
        self._failures = 0
        self._reached = 0

    def reached(self, position: int) -> None:
        """The transfer stands at byte `position`; real progress forgets earlier failures."""
        if position >= self._reached + PROGRESS_BYTES:
            self._reached = position
            self._failures = 0

    def is_over(self, error: RemoteError) -> bool:
        """Whether `error` is one too many: `pause` would raise it."""
        return not error.is_transient or self._failures + 1 >= min(error.patience, self._patience)

    def pause(self, error: RemoteError) -> None:
        """Wait before the next attempt, or raise `error` if there is to be none."""
        if self.is_over(error):
            raise error
        self._failures += 1
        seconds = self._first_s * 2 ** (self._failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311  # not a secret
        if isinstance(error, ServerBusy) and error.retry_after_s is not None:
            seconds = max(seconds, error.retry_after_s)
        seconds = min(seconds, MAX_PAUSE_S)
        self._tell(f"{error}; trying again in {seconds:.1f} s")
        self._sleep(seconds)
