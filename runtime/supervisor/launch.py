"""Starting a runner: a clean environment, a control channel, and a pipe for what llama.cpp says."""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.process import clean_command, clean_environment
from runtime.runner.settings import RunnerSettings
from runtime.supervisor.runner_log import RunnerLog
from runtime.wire import encode_frame

_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that loads a model. Closing `writer` tells it to end."""

    process: Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: RunnerLog
    logging: asyncio.Task[None]  # done once all that the process wrote is in the log


async def launch(settings: RunnerSettings, *, name: str, extra_env: Mapping[str, str]) -> Launched:
    """Start a runner and send it `settings`. `name` marks its lines in the log. Raises OSError.

    Called from the main thread only: on Linux a runner ends with the thread that started it.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            *clean_command("runtime.runner"),
            stdin=theirs.fileno(), stdout=DEVNULL, stderr=PIPE, limit=_LINE_BYTES,
            env=clean_environment(extra_env),
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
    log = RunnerLog(name, process.pid)
    return Launched(process, reader, writer, log, asyncio.create_task(log.follow(process.stderr)))
