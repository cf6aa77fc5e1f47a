"""`python -m runtime.runner`: one loaded model in a process of its own.

Standard input is a socket to the supervisor: settings come in as one frame; progress, then "ready" or "failed", go out.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from runtime.errors import LoadFailed
from runtime.process import die_with_parent
from runtime.runner.files import keep_files
from runtime.runner.limits import restrain
from runtime.runner.settings import RunnerSettings
from runtime.wire import Channel

_SETTINGS_S = 10.0
_REPORT_S = 5.0
_PROGRESS_EVERY_S = 0.2


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
    keep_files(settings)
    try:
        serve(settings, control, channel)
    except LoadFailed as error:
        channel.send({"event": "failed", "message": str(error)}, timeout_s=_REPORT_S)
        return 2
    return 0


def serve(settings: RunnerSettings, control: socket.socket, channel: Channel) -> None:
    """Load the model, say so, and answer requests until the supervisor closes `control`. Raises LoadFailed."""
    from runtime.runner.engine import Engine  # noqa: PLC0415  # llama.cpp starts on import: after the limits are set
    from runtime.runner.library import Log, Model  # noqa: PLC0415
    from runtime.runner.server import Server  # noqa: PLC0415
    from runtime.runner.words import WordsOnly  # noqa: PLC0415

    log = Log()
    model = Model(settings, log, Progress(channel))
    engine = WordsOnly() if settings.vocabulary_only else Engine(model, settings)
    with listening(settings.socket) as listener:
        server = Server(engine, model.vocabulary, listener, control)
        gc.freeze()  # what is here now stays until the end: later collections need not look at it
        taken = {"host_bytes": log.host_bytes, "device_bytes": log.device_bytes}
        channel.send({"event": "ready", "pid": os.getpid(), **taken, **engine.facts()}, timeout_s=_REPORT_S)
        server.serve()


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
