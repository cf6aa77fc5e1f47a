"""Small models of several architectures, for what only their headers and shapes decide: all weights are zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.tiny_gguf import byte_spelling

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Variant:
    """One architecture at one size. extra: metadata below the architecture's name."""

    arch: str
    shapes: Callable[[Variant], Shapes]
    embedding: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int | Sequence[int] = 2
    head_size: int = 32
    feed_forward: int = 768
    vocabulary: int = 32_000
    context: int = 32_768
    extra: dict[str, Any] = field(default_factory=dict)


def write_variant(path: Path, variant: Variant) -> Path:
    """Write the model to `path`. Two-dimensional weights are Q4_0, the rest F32."""
    writer = gguf.GGUFWriter(path, variant.arch)
    arch = variant.arch
    writer.add_context_length(variant.context)
    writer.add_embedding_length(variant.embedding)
    writer.add_block_count(variant.layers)
    writer.add_feed_forward_length(variant.feed_forward)
    if variant.heads:
        writer.add_head_count(variant.heads)
        writer.add_head_count_kv(variant.kv_heads)
        writer.add_key_length(variant.head_size)
        writer.add_value_length(variant.head_size)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in variant.extra.items():
        writer.add_key_value(f"{arch}.{key}", *_typed(value))
    _add_vocabulary(writer, variant.vocabulary)
    for name, shape in variant.shapes(variant).items():
        _add_zeros(writer, name, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _typed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return value, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32
    kinds = {bool: gguf.GGUFValueType.BOOL, float: gguf.GGUFValueType.FLOAT32, int: gguf.GGUFValueType.UINT32}
    return value, kinds[type(value)]


def _add_vocabulary(writer: gguf.GGUFWriter, count: int) -> None:
    tokens = list(byte_spelling().values())
    tokens += [f"word{number}" for number in range(count - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * count)
    writer.add_token_merges(["w o"])
    writer.add_eos_token_id(count - 1)
    writer.add_bos_token_id(count - 1)


def _add_zeros(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...]) -> None:
    """shape: as numpy has it, the fastest dimension last."""
    if len(shape) == 1 or shape[-1] % 32 or name.endswith(("conv1d.weight", "ssm_a", "gate_inp.weight")):
        writer.add_tensor(name, np.zeros(shape, np.float32))
        return
    quantised = np.zeros((*shape[:-1], shape[-1] // 32 * 18), np.uint8)
    writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q4_0)


def _outer(variant: Variant) -> Shapes:
    return {
        "token_embd.weight": (variant.vocabulary, variant.embedding),
        "output_norm.weight": (variant.embedding,),
        "output.weight": (variant.vocabulary, variant.embedding),
    }


def _attention(variant: Variant, layer: int) -> Shapes:
    width, kv_heads = variant.embedding, variant.kv_heads
    query = variant.heads * variant.head_size
    cached = (kv_heads if isinstance(kv_heads, int) else kv_heads[layer]) * variant.head_size
    block = f"blk.{layer}."
    return {
        block + "attn_norm.weight": (width,),
        block + "attn_q.weight": (query, width),
        block + "attn_k.weight": (cached, width),
        block + "attn_v.weight": (cached, width),
        block + "attn_output.weight": (width, query),
    }


def _feed_forward(variant: Variant, layer: int) -> Shapes:
    block = f"blk.{layer}."
    return {
        block + "ffn_norm.weight": (variant.embedding,),
        block + "ffn_gate.weight": (variant.feed_forward, variant.embedding),
        block + "ffn_up.weight": (variant.feed_forward, variant.embedding),
        block + "ffn_down.weight": (variant.embedding, variant.feed_forward),
    }


def llama(variant: Variant) -> Shapes:
    shapes = _outer(variant)
    for layer in range(variant.layers):
        shapes |= _attention(variant, layer) | _feed_forward(variant, layer)
    return shapes


def gemma3(variant: Variant) -> Shapes:
    shapes = llama(variant)
    for layer in range(variant.layers):
        block = f"blk.{layer}."
        shapes |= {
            block + "post_attention_norm.weight": (variant.embedding,),
            block + "post_ffw_norm.weight": (variant.embedding,),
            block + "attn_q_norm.weight": (variant.head_size,),
            block + "attn_k_norm.weight": (variant.head_size,),
        }
    return shapes


EXPERTS, USED = 8, 2


def experts(variant: Variant) -> Shapes:
    """A llama whose feed-forward is one of several, chosen for each token."""
    shapes = _outer(variant)
    wide, narrow = variant.feed_forward, variant.embedding
    for layer in range(variant.layers):
        block = f"blk.{layer}."
        shapes |= _attention(variant, layer) | {
            block + "ffn_norm.weight": (narrow,),
            block + "ffn_gate_inp.weight": (EXPERTS, narrow),
            block + "ffn_gate_exps.weight": (EXPERTS, wide, narrow),
            block + "ffn_up_exps.weight": (EXPERTS, wide, narrow),
            block + "ffn_down_exps.weight": (EXPERTS, narrow, wide),
        }
    return shapes


KERNEL, RANK = 4, 16


def mamba(variant: Variant) -> Shapes:
    shapes = _outer(variant)
    inner, state = variant.extra["ssm.inner_size"], variant.extra["ssm.state_size"]
    for layer in range(variant.layers):
        block = f"blk.{layer}."
        shapes |= {
            block + "attn_norm.weight": (variant.embedding,),
            block + "ssm_in.weight": (2 * inner, variant.embedding),
            block + "ssm_conv1d.weight": (inner, KERNEL),
            block + "ssm_conv1d.bias": (inner,),
            block + "ssm_x.weight": (RANK + 2 * state, inner),
            block + "ssm_dt.weight": (inner, RANK),
            block + "ssm_dt.bias": (inner,),
            block + "ssm_a": (inner, state),
            block + "ssm_d": (inner,),
            block + "ssm_out.weight": (variant.embedding, inner),
        }
    return shapes


NOPE, ROPE, VALUE, LATENT = 64, 32, 64, 128


def deepseek2(variant: Variant) -> Shapes:
    shapes = _outer(variant)
    width, heads = variant.embedding, variant.heads
    for layer in range(variant.layers):
        block = f"blk.{layer}."
        shapes |= _feed_forward(variant, layer) | {
            block + "attn_norm.weight": (width,),
            block + "attn_kv_a_norm.weight": (LATENT,),
            block + "attn_q_a_norm.weight": (LATENT,),
            block + "attn_q_a.weight": (LATENT, width),
            block + "attn_q_b.weight": (heads * (NOPE + ROPE), LATENT),
            block + "attn_kv_a_mqa.weight": (LATENT + ROPE, width),
            block + "attn_k_b.weight": (heads, LATENT, NOPE),
            block + "attn_v_b.weight": (heads, VALUE, LATENT),
            block + "attn_output.weight": (width, heads * VALUE),
        }
    return shapes


MLA = {
    "attention.q_lora_rank": LATENT, "attention.kv_lora_rank": LATENT,
    "attention.key_length_mla": NOPE + ROPE, "attention.value_length_mla": VALUE,
    "rope.dimension_count": ROPE, "expert_feed_forward_length": 64, "expert_shared_count": 0,
    "leading_dense_block_count": 4,
}  # fmt: skip
SSM = {"ssm.conv_kernel": KERNEL, "ssm.inner_size": 512, "ssm.state_size": 16, "ssm.time_step_rank": RANK}
VARIANTS = {
    "wide vocabulary": Variant("llama", llama),
    "deep": Variant("llama", llama, layers=24, kv_heads=4, vocabulary=2000),
    "all heads cached": Variant("llama", llama, heads=8, kv_heads=8, vocabulary=8000),
    "long heads": Variant("llama", llama, heads=8, kv_heads=4, head_size=128, vocabulary=4000),
    "wide layers": Variant("llama", llama, embedding=1024, feed_forward=4096, layers=2, vocabulary=1000),
    "window": Variant("gemma3", gemma3, layers=12, vocabulary=8000, extra={"attention.sliding_window": 512}),
    "states": Variant("mamba", mamba, heads=0, feed_forward=0, vocabulary=8000, layers=16, extra=SSM),
    "wide states": Variant(
        "mamba", mamba, embedding=1024, heads=0, feed_forward=0, vocabulary=1000, extra=SSM | {"ssm.inner_size": 2048}
    ),
    "experts": Variant("llama", experts, vocabulary=1000, extra={"expert_count": EXPERTS, "expert_used_count": USED}),
    "latent": Variant("deepseek2", deepseek2, kv_heads=1, head_size=LATENT + ROPE, vocabulary=2000, extra=MLA),
}
