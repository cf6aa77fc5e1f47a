"""llama-server of llama.cpp, started for a comparison with the same model, threads, slots and context as ours."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import Server, free_address, running


@dataclass(frozen=True, slots=True)
class Setting:
    """What both servers are told.

    context: tokens of one slot. kv_type: of the cache's keys and values alike. spin: how often a thread that waits for
    the others looks before it sleeps; 0 leaves llama-server to libgomp, which spins for long.
    """

    threads: int
    slots: int
    context: int
    kv_type: str = "f16"
    spin: int = 0


@contextmanager
def llama_server(
    binary: Path, model: Path, folder: Path, setting: Setting, *, embeds: bool = False, pooling: str = ""
) -> Iterator[Server]:
    """A running llama-server, ended afterwards. Whatever is not in `setting` is as it comes, its caches of prompts too.

    embeds: it embeds and does nothing else. pooling: for a model that does not say how to pool.
    """
    address = free_address()
    command = [str(binary), "--host", address[0], "--port", str(address[1]), "-m", str(model), "--offline"]
    command += ["-t", str(setting.threads), "-np", str(setting.slots), "-c", str(setting.context * setting.slots)]
    command += ["-ctk", setting.kv_type, "-ctv", setting.kv_type, "-fa", "auto", "-lv", "1"]
    if embeds:
        command += ["--embeddings", *(["--pooling", pooling] if pooling else [])]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_ARG_")}
    if setting.spin:
        environ["GOMP_SPINCOUNT"] = str(setting.spin)
    with running(command, folder, environ, address, ready="/health") as pid:
        yield Server("llama-server", address, pid, ())


def version(binary: Path) -> str:
    """The build it calls itself."""
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True, timeout=30)
    found = re.search(r"version: (.*)", done.stdout + done.stderr)
    return found[1].strip() if found else "unknown"
