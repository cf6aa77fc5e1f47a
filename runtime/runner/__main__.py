"""`python -m runtime.runner`: one loaded model in a process of its own.

Standard input is a socket to the supervisor: settings come in as one frame; progress, then "ready" or "failed", go out.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed
from runtime.process import die_with_parent, gain_no_privileges
from runtime.runner.settings import RunnerSettings
from runtime.wire import Channel

_SETTINGS_S = 10.0
_REPORT_S = 5.0
_PROGRESS_EVERY_S = 0.2
_MOST_FILES = 2048  # connections, the model, and what a driver of accelerators opens
_OOM_SCORE = "500"  # as if half of the memory were ours: the kernel ends a runner, which loads anew, before the server


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the supervisor ends us in order
    control = socket.socket(fileno=os.dup(0))
    channel = Channel(control)
    body = channel.receive(timeout_s=_SETTINGS_S)
    if body is None:
        return 1
    settings = RunnerSettings.from_json(body)
    if settings.parent_pid:
        die_with_parent(settings.parent_pid, signal.SIGKILL)
    restrain()
    try:
        serve(settings, control, channel)
    except LoadFailed as error:
        channel.send({"event": "failed", "message": str(error)}, timeout_s=_REPORT_S)
        return 2
    return 0


def restrain() -> None:
    """Write no file, leave no core, gain no rights: we read bytes from anywhere.

    Memory is not limited, since maps count as memory; nor processes, since those of our user everywhere would count.
    We stay readable to our own user in /proc: operators look there, and without cores nothing is left behind. Our
    priority is everybody's: all threads of a step wait for the slowest one, so a lower one would not yield a little
    to whoever is busy beside us, but slow down by as much as one thread is held back.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if most_files == resource.RLIM_INFINITY else min(_MOST_FILES, most_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.umask(0o077)
    gain_no_privileges()
    with contextlib.suppress(OSError):  # no such file elsewhere than on Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def serve(settings: RunnerSettings, control: socket.socket, channel: Channel) -> None:
    """Load the model, say so, and answer requests until the supervisor closes `control`. Raises LoadFailed."""
    from runtime.runner.engine import Engine  # noqa: PLC0415  # llama.cpp starts on import: after the limits are set
    from runtime.runner.library import Log, Model  # noqa: PLC0415
    from runtime.runner.server import Server  # noqa: PLC0415

    log = Log()
    model = Model(settings, log, Progress(channel))
    engine = Engine(model, settings)
    with listening(settings.socket) as listener:
        gc.freeze()  # what is here now stays until the end: later collections need not look at it
        taken = {"host_bytes": log.host_bytes, "device_bytes": log.device_bytes}
        channel.send({"event": "ready", "pid": os.getpid(), **taken, **engine.facts()}, timeout_s=_REPORT_S)
        Server(engine, model.vocabulary, listener, control).serve()


class Progress:
    """Passes on how much of the model is loaded, a few times a second at most."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next_at = 0.0

    def __call__(self, progress: float) -> None:
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + _PROGRESS_EVERY_S
            event: dict[str, Any] = {"event": "loading", "progress": round(progress, 3)}
            self._channel.send(event, timeout_s=_REPORT_S)


def listening(path: str) -> socket.socket:
    """A Unix socket at `path` that only our own user may open: the umask is set."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    Path(path).chmod(0o600)
    listener.listen(256)
    return listener


if __name__ == "__main__":
    sys.exit(main())
