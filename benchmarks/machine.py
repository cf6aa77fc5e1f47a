"""What a figure was measured on, in a few lines that can stand above a table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import llama_server


def describe(binary: Path, model: Path, setting: llama_server.Setting) -> str:
    """Markdown: the machine, the versions, the model, and what both servers were told."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    size = model.stat().st_size / 2**20
    return (
        f"Measured on {_processor()}, {os.cpu_count()} processors, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; llama-cpp-python {importlib.metadata.version('llama-cpp-python')}, "
        f"llama-server {llama_server.version(binary)}; {model.name} ({size:.0f} MiB); {setting.threads} threads, "
        f"{setting.slots} slots of {setting.context} tokens, KV cache {setting.kv_type}, "
        f"GOMP_SPINCOUNT of llama-server {setting.spin or 'unset'} (ours: 1000).\n"
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()
