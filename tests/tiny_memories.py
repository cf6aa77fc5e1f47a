"""Tiny models with random weights whose memory is no plain cache: windows, states, and both kinds of layer in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

from tests import tiny_gguf
from tests.tiny_gguf import EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS, WINDOW = 2, 32
KINDS = ("gemma3", "mamba", "jamba")
_INNER, _STATE, _KERNEL, _RANK = 2 * EMBEDDING, 16, 4, 8
Tensors = dict[str, "NDArray[Any]"]


def write_tiny_memory(path: Path, kind: str, *, seed: int = 0) -> Path:
    """Write a model to `path`. kind: "gemma3" looks back `WINDOW` tokens, "mamba" has states, "jamba" has both kinds
    of layer, one of states and one with a cache.
    """
    writer = gguf.GGUFWriter(path, kind)
    rng = np.random.default_rng(seed)
    tokens, types = tiny_gguf._vocabulary()
    writer.add_context_length(4096)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD if kind != "mamba" else 0)
    writer.add_layer_norm_rms_eps(1e-5)
    if kind == "mamba":
        writer.add_head_count(0)
    else:
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS if kind == "gemma3" else [0, KV_HEADS])
    if kind == "gemma3":
        writer.add_sliding_window(WINDOW)
        writer.add_key_length(EMBEDDING // HEADS)
        writer.add_value_length(EMBEDDING // HEADS)
    else:
        writer.add_ssm_conv_kernel(_KERNEL)
        writer.add_ssm_inner_size(_INNER)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_RANK)
    tiny_gguf._add_tokenizer(writer, tokens, types, tiny_gguf.CHAT_TEMPLATE, False)
    tensors: Tensors = {
        "token_embd.weight": tiny_gguf._normal(rng, len(tokens), EMBEDDING),
        "output_norm.weight": np.ones(EMBEDDING, np.float32),
        "output.weight": tiny_gguf._normal(rng, len(tokens), EMBEDDING),
    }
    for layer in range(LAYERS):
        has_state = kind == "mamba" or (kind == "jamba" and layer == 0)
        tensors |= _state(rng, layer, kind) if has_state else _attention(rng, layer, kind)
        if kind != "mamba":
            tensors |= _feed_forward(rng, layer, kind)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _attention(rng: np.random.Generator, layer: int, kind: str) -> Tensors:
    block, head = f"blk.{layer}.", EMBEDDING // HEADS
    tensors = {
        block + "attn_norm.weight": np.ones(EMBEDDING),
        block + "attn_q.weight": tiny_gguf._normal(rng, EMBEDDING, EMBEDDING),
        block + "attn_k.weight": tiny_gguf._normal(rng, head * KV_HEADS, EMBEDDING),
        block + "attn_v.weight": tiny_gguf._normal(rng, head * KV_HEADS, EMBEDDING),
        block + "attn_output.weight": tiny_gguf._normal(rng, EMBEDDING, EMBEDDING),
    }
    if kind == "gemma3":
        for name, size in (("post_attention", EMBEDDING), ("post_ffw", EMBEDDING), ("attn_q", head), ("attn_k", head)):
            tensors[f"{block}{name}_norm.weight"] = np.ones(size)
    return tensors


def _feed_forward(rng: np.random.Generator, layer: int, kind: str) -> Tensors:
    block = f"blk.{layer}."
    return {
        block + "ffn_norm.weight": np.ones(EMBEDDING),
        block + "ffn_gate.weight": tiny_gguf._normal(rng, FEED_FORWARD, EMBEDDING),
        block + "ffn_up.weight": tiny_gguf._normal(rng, FEED_FORWARD, EMBEDDING),
        block + "ffn_down.weight": tiny_gguf._normal(rng, EMBEDDING, FEED_FORWARD),
    }


def _state(rng: np.random.Generator, layer: int, kind: str) -> Tensors:
    block = f"blk.{layer}."
    tensors = {
        block + "attn_norm.weight": np.ones(EMBEDDING),
        block + "ssm_in.weight": tiny_gguf._normal(rng, 2 * _INNER, EMBEDDING),
        block + "ssm_conv1d.weight": tiny_gguf._normal(rng, _INNER, _KERNEL),
        block + "ssm_conv1d.bias": np.zeros(_INNER),
        block + "ssm_x.weight": tiny_gguf._normal(rng, _RANK + 2 * _STATE, _INNER),
        block + "ssm_dt.weight": tiny_gguf._normal(rng, _INNER, _RANK),
        block + "ssm_dt.bias": np.zeros(_INNER),
        block + "ssm_a": -np.exp(rng.standard_normal((_INNER, _STATE))),
        block + "ssm_d": np.ones(_INNER),
        block + "ssm_out.weight": tiny_gguf._normal(rng, EMBEDDING, _INNER),
    }
    if kind == "jamba":
        for name, size in (("dt", _RANK), ("b", _STATE), ("c", _STATE)):
            tensors[f"{block}ssm_{name}_norm.weight"] = np.ones(size)
    return tensors
