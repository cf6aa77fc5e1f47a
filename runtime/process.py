"""How our processes begin and end: with nothing of ours but what they are told, and none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PACKAGES = Path(__file__).resolve().parent.parent
# Threads that wait for each other spin so often before they sleep. As fast as the default on an idle machine; where
# something else needs a core, the default's long spins keep it from the very thread that is waited for.
_ENV = {"PATH": os.defpath, "LANG": "C.UTF-8", "GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}


def clean_command(module: str) -> list[str]:
    """What starts a module of ours in a process of its own, with `clean_environment`."""
    return [sys.executable, "-P", "-B", "-m", module]


def clean_environment(extra: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of a process that reads bytes from anywhere: `extra`, and none of ours, where secrets may be."""
    return {**_ENV, **extra, "PYTHONPATH": str(_PACKAGES)}


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


def how_ended(status: int) -> str:
    """In words, what `status` says that a process of ours did: `was ended by SIGKILL`, `ended with status 1`."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
