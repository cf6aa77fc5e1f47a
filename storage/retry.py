"""Running again what the database gave up."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from storage.errors import TransactionLost

P = ParamSpec("P")
T = TypeVar("T")

_PAUSES_S: Final = (0.05, 0.2, 0.8)

_log: Final = logging.getLogger("tonnage.database")


def retried(run: Callable[P, T]) -> Callable[P, T]:
    """Run a few times more, after a pause, what raises TransactionLost; the last one's error is the caller's.

    `run` has one transaction, and all it does besides may be done again.
    """

    @wraps(run)
    def run_again(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause_s in _PAUSES_S:
            try:
                return run(*args, **kwargs)
            except TransactionLost:
                _log.warning("a transaction was lost to another one and runs again: %s", run.__qualname__)
                time.sleep(random.uniform(0, pause_s))  # noqa: S311  # the two that met shall not meet again
        return run(*args, **kwargs)

    return run_again
