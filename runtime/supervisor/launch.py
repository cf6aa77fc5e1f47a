"""Starting a runner: a clean environment, a control channel, and a pipe for what llama.cpp says."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.runner.settings import RunnerSettings
from runtime.wire import encode_frame

_PACKAGES = Path(__file__).resolve().parent.parent.parent
_LINE_BYTES = 64 * 1024
# Threads that wait for each other spin so often before they sleep. As fast as the default on an idle machine; where
# something else needs a core, the default's long spins keep it from the very thread that is waited for.
_ENV = {"PATH": os.defpath, "LANG": "C.UTF-8", "GOMP_SPINCOUNT": "1000"}
log = logging.getLogger("tonnage.runner")


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that loads a model. Closing `writer` tells it to end."""

    process: Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    logging: asyncio.Task[None]


async def launch(settings: RunnerSettings, *, name: str, extra_env: Mapping[str, str]) -> Launched:
    """Start a runner and send it `settings`. `name` marks its lines in the log. Raises OSError.

    Called from the main thread only: on Linux a runner ends with the thread that started it.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-B", "-m", "runtime.runner",
            stdin=theirs.fileno(), stdout=DEVNULL, stderr=PIPE, limit=_LINE_BYTES,
            env={**_ENV, **extra_env, "PYTHONPATH": str(_PACKAGES)},
            start_new_session=True,  # a Ctrl-C in a terminal is the supervisor's to handle
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    writer.write(encode_frame(settings.to_json()))
    assert process.stderr is not None
    return Launched(process, reader, writer, asyncio.create_task(_log_lines(name, process.pid, process.stderr)))


async def _log_lines(name: str, pid: int, lines: asyncio.StreamReader) -> None:
    """Pass on what the runner writes, one line an event, until it ends."""
    while True:
        try:
            line = await lines.readline()
        except ValueError:  # longer than the limit: asyncio has dropped it
            continue
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            log.info("%s[%d] %s", name, pid, text)
