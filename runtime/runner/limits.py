"""What a process that shows a stranger's bytes to llama.cpp may not do."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from runtime.process import gain_no_privileges

_MOST_FILES = 2048  # connections, the model, and what a driver of accelerators opens
_OOM_SCORE = "500"  # as if half of the memory were ours: the kernel ends a runner, which loads anew, before the server


def restrain(*, most_written: int = 0) -> None:
    """Write no file of more than `most_written` bytes, leave no core, gain no rights: we read bytes from anywhere.

    Memory is not limited, since maps count as memory; nor processes, since those of our user everywhere would count.
    We stay readable to our own user in /proc: operators look there, and without cores nothing is left behind. Our
    priority is everybody's: all threads of a step wait for the slowest one, so a lower one would not yield a little
    to whoever is busy beside us, but slow down by as much as one thread is held back.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = _least(most_written, allowed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _least(_MOST_FILES, most_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.umask(0o077)
    gain_no_privileges()
    with contextlib.suppress(OSError):  # no such file elsewhere than on Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _least(wanted: int, limit: int) -> int:
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, limit)
