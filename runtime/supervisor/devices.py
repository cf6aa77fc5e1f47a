"""Which accelerators there are, asked once, of a short-lived process; whatever goes wrong means there are none."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from runtime.supervisor.settings import Device

_PACKAGES = Path(__file__).resolve().parent.parent.parent
_ANSWER_S = 20.0  # a driver may have to be woken
_PROCESSOR_ONLY = {"libggml", "libggml-base", "libggml-cpu", "ggml", "ggml-base", "ggml-cpu"}
log = logging.getLogger("tonnage.supervisor")


def discover(extra_env: Mapping[str, str]) -> tuple[Device, ...]:
    """The accelerators a runner with `extra_env` would see. Never raises."""
    if not _may_have_any(extra_env):
        return ()
    command = [sys.executable, "-P", "-B", "-m", "runtime.runner.devices"]
    env = {"PATH": os.defpath, "LANG": "C.UTF-8", **extra_env, "PYTHONPATH": str(_PACKAGES)}
    try:
        answer = subprocess.run(  # noqa: S603  # our own module, no words of anybody else
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=True
        )
        found = tuple(map(Device.from_json, json.loads(answer.stdout)))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, AttributeError) as error:
        log.warning("devices unknown, none is used: %s", type(error).__name__)
        return ()
    for device in found:
        log.info("device name=%s free_bytes=%d total_bytes=%d", device.name, device.free_bytes, device.total_bytes)
    return found


def _may_have_any(extra_env: Mapping[str, str]) -> bool:
    """Whether llama.cpp was built with more than the processor's backend. Starting Python to be told no takes long."""
    spec = find_spec("llama_cpp")
    if spec is None:
        return False
    folders = [Path(place) / "lib" for place in spec.submodule_search_locations or ()]
    if "LLAMA_CPP_LIB_PATH" in extra_env or not folders:
        return True
    names = {path.name.partition(".")[0] for folder in folders for path in folder.glob("*ggml*")}
    return not names or not names <= _PROCESSOR_ONLY
