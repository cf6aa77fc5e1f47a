"""LoRA adapters for the tiny model, small and random, and what they add to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.tiny_gguf import EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, LAYERS

RANK, ALPHA = 4, 8.0
Pairs = dict[str, tuple[NDArray[Any], NDArray[Any]]]
_KV_WIDTH = EMBEDDING // HEADS * KV_HEADS
_CHANGED = {"attn_q": (EMBEDDING, EMBEDDING), "attn_v": (_KV_WIDTH, EMBEDDING), "ffn_down": (EMBEDDING, FEED_FORWARD)}


def tiny_pairs(seed: int = 0, strength: float = 1.0) -> Pairs:
    """By the names of weights, (rank, inputs) and (outputs, rank), drawn from `seed`."""
    rng = np.random.default_rng(seed)
    pairs: Pairs = {}
    for layer in range(LAYERS):
        for part, (outputs, inputs) in _CHANGED.items():
            down = rng.standard_normal((RANK, inputs)) * inputs**-0.5
            up = rng.standard_normal((outputs, RANK)) * RANK**-0.5 * strength
            pairs[f"blk.{layer}.{part}.weight"] = down.astype(np.float32), up.astype(np.float32)
    return pairs


def deltas(pairs: Pairs, alpha: float = ALPHA) -> dict[str, NDArray[Any]]:
    """What `pairs` add to each weight."""
    return {name: (up @ down * (alpha / RANK if alpha else 1)).astype(np.float32) for name, (down, up) in pairs.items()}


def write_tiny_lora(
    path: Path,
    pairs: Pairs | None = None,
    *,
    alpha: float = ALPHA,
    arch: str = "llama",
    metadata: Mapping[str, str] | None = None,
    tensors: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write an adapter to `path`. metadata: texts that stand for others, or are left out where they are empty.

    tensors: instead of the halves of `pairs`.
    """
    writer = gguf.GGUFWriter(path, arch)
    told = {"general.type": "adapter", "adapter.type": "lora"} | dict(metadata or {})
    for key, value in told.items():
        if value:
            writer.add_string(key, value)
    writer.add_float32("adapter.lora.alpha", alpha)
    if tensors is None:
        pairs = tiny_pairs() if pairs is None else pairs
        halves = {f"{name}.lora_a": down for name, (down, _) in pairs.items()}
        tensors = halves | {f"{name}.lora_b": up for name, (_, up) in pairs.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
