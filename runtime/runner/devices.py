"""`python -m runtime.runner.devices`: the accelerators that llama.cpp can use, as a JSON list on standard output.

A process of its own, and a short one: asking a driver may crash, hang, or leave memory taken.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

_GPU, _INTEGRATED = 1, 2  # ggml_backend_dev_type; the others are the processor and what helps it
_MOST_DEVICES = 64


def main() -> int:
    sys.stdout.write(json.dumps(devices()))
    return 0


def devices() -> list[dict[str, Any]]:
    """Name, and bytes of memory, of each accelerator; none on a build for the processor alone."""
    import llama_cpp.llama_cpp as ll  # noqa: PLC0415  # loads the backends
    from llama_cpp._ggml import libggml as ggml  # noqa: PLC0415

    if not ll.llama_supports_gpu_offload():
        return []
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    return [
        _describe(ggml, device)
        for device in map(ggml.ggml_backend_dev_get, range(min(ggml.ggml_backend_dev_count(), _MOST_DEVICES)))
        if _kind(ggml, device) in {_GPU, _INTEGRATED}
    ]


def _kind(ggml: Any, device: int) -> int:
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    return int(ggml.ggml_backend_dev_type(device))


def _describe(ggml: Any, device: int) -> dict[str, Any]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    ggml.ggml_backend_dev_memory.restype = None
    ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    name = ggml.ggml_backend_dev_name(device) or b""
    return {"name": name.decode("utf-8", "replace"), "total_bytes": total.value, "free_bytes": free.value}


if __name__ == "__main__":
    sys.exit(main())
