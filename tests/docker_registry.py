"""Docker's own registry on a free loopback port, with a folder of its own and no users."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server import wait_for

COMMAND = "docker-registry"
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")
_CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:0"}}
"""


def is_missing() -> bool:
    """Whether tests without it are to be skipped: where everything is checked, its absence is a failure."""
    return not shutil.which(COMMAND) and not os.environ.get("CI")


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Its `host:port`, while it runs. Skips the test where the command is not installed."""
    if is_missing():
        pytest.skip(f"{COMMAND} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    config, log_path = folder / "config.yml", folder / "log"
    config.write_text(_CONFIG.format(root=folder / "data"))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "OTEL_TRACES_EXPORTER": "none"}
    with log_path.open("wb") as log:
        process = subprocess.Popen([COMMAND, "serve", str(config)], env=environ, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or bool(_listens(log_path)), 20, f"{COMMAND} to listen")
        assert process.poll() is None, log_path.read_text()
        yield _listens(log_path)
    finally:
        process.terminate()
        process.wait(10)


def _listens(log_path: Path) -> str:
    match = _LISTENING.search(log_path.read_text("utf-8", "replace"))
    return match[1] if match else ""
