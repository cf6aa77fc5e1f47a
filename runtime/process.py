"""How our processes end: none of them outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Be sent `number` when the process `parent` ends; exit now if it has ended already.

    Linux follows the thread that started us, so processes are started from main threads alone. Elsewhere this does
    nothing, and a server that is killed outright leaves its children to be ended by hand.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def gain_no_privileges() -> None:
    """Run nothing with more rights than we have, be it marked so; on Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
