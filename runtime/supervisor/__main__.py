"""`python -m runtime.supervisor --run-dir DIR`: the process that decides which models are loaded.

Settings are one JSON object on standard input, up to its end. Log lines go to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

from runtime.process import die_with_parent
from runtime.supervisor.client import SOCKET_NAME
from runtime.supervisor.devices import discover
from runtime.supervisor.fleet import Fleet
from runtime.supervisor.service import Service
from runtime.supervisor.settings import SupervisorSettings

_SETTINGS_BYTES = 1024 * 1024
_SOCKET_PATH_BYTES = 107  # of sun_path, on Linux
_LOCK_S = 2.0  # a predecessor that is being killed lets go within this


def main() -> int:
    parser = argparse.ArgumentParser(prog="runtime.supervisor")
    parser.add_argument("--run-dir", type=Path, required=True)
    run_dir: Path = parser.parse_args().run_dir
    settings = SupervisorSettings.from_json(json.loads(sys.stdin.buffer.read(_SETTINGS_BYTES) or b"{}"))
    if settings.parent:
        die_with_parent(settings.parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)
    if len(os.fsencode(run_dir / "r9999999-999999.sock")) > _SOCKET_PATH_BYTES:
        logging.error("the run directory has too long a path for sockets: %s", run_dir)
        return 2
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (run_dir / "supervisor.lock").open("a+") as lock:
        if not take(lock):
            logging.error("another supervisor serves %s", run_dir)
            return 1
        for stale in run_dir.glob("r*-*.sock"):
            stale.unlink(missing_ok=True)  # of runners that a supervisor before us could not see end
        if not settings.devices:
            settings = replace(settings, devices=discover(settings.runner_env))
        asyncio.run(supervise(settings, run_dir))
    return 0


def take(lock: IO[str]) -> bool:
    """Hold the lock of the run directory for as long as this process lives. False where another keeps it."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


async def supervise(settings: SupervisorSettings, run_dir: Path) -> None:
    """Serve until told to stop; then nothing of ours is left: no runner, no socket."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    fleet = Fleet(settings, run_dir)
    vocabularies = Fleet(settings.for_vocabularies(), run_dir)
    service = Service(fleet, vocabularies, stopping)
    path = run_dir / SOCKET_NAME
    server = await service.listen(path)
    logging.getLogger("tonnage.supervisor").info("listening path=%s budget_bytes=%d", path, settings.budget_bytes)
    try:
        await stopping.wait()
        server.close()
        path.unlink(missing_ok=True)
        await asyncio.gather(fleet.stop(), vocabularies.stop())
    finally:
        await service.close()


if __name__ == "__main__":
    sys.exit(main())
