"""Files of weights and of adapters, handed to llama.cpp. Pointers come out; null where it refuses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as ll

from runtime.runner.settings import RunnerSettings


def load_weights(settings: RunnerSettings, params: Any) -> Any:
    """The model of one file or of several in order, or of what begins in the middle of a file."""
    paths = [path.encode() for path in (settings.path, *settings.more_paths)]
    if settings.offset:
        return _load_inside(paths[0], settings.offset, params)
    return ll.llama_model_load_from_splits((ctypes.c_char_p * len(paths))(*paths), len(paths), params)


def load_adapter(model: Any, path: str) -> Any:
    """A LoRA adapter for `model`, which lives as long as the model does."""
    return ll.llama_adapter_lora_init(model, path.encode())


def add_adapters(context: Any, adapters: Sequence[Any]) -> None:
    """Add all of them to the weights, each at full strength: a model's manifest has no word for less."""
    count = len(adapters)
    pointers, scales = (ll.llama_adapter_lora_p_ctypes * count)(), (ctypes.c_float * count)(*[1.0] * count)
    for place, adapter in enumerate(adapters):
        pointers[place] = ctypes.cast(adapter, ll.llama_adapter_lora_p_ctypes)
    ll.llama_set_adapters_lora(context, pointers, count, scales)


def _load_inside(path: bytes, offset: int, params: Any) -> Any:
    """Through a file of the C library: llama.cpp knows no other way to say where to begin."""
    c_library = ctypes.CDLL(None)
    opened, sought, closed = c_library.fopen, c_library.fseeko, c_library.fclose
    opened.argtypes, opened.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_void_p
    sought.argtypes, closed.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int], [ctypes.c_void_p]
    file = opened(path, b"rb")
    if not file:
        return None
    try:
        return None if sought(file, offset, 0) else ll.llama_model_load_from_file_ptr(file, params)
    finally:
        closed(file)
