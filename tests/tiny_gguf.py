"""A language model small enough to be written anew for every test: real tokenizer, real layers, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBEDDING, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 64, 2, 4, 2, 128
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MERGES = ("Ġ t", "h e", "i n", "Ġ a", "r e", "o n", "Ġt he", "Ġ s", "e r", "Ġ w", "n d", "o u", "i s", "l l", "l o",
           "he ll", "hell o", "Ġw o", "r l", "rl d", "Ġwo rld")  # fmt: skip


def write_tiny_gguf(
    path: Path,
    *,
    n_ctx_train: int = 2048,
    chat_template: str | None = CHAT_TEMPLATE,
    seed: int = 0,
    pooling: int | None = None,
    arch: str = "llama",
    add_bos: bool = False,
    name: str = "tiny",
    is_float: bool = False,
    is_tied: bool = False,
    added: Mapping[str, NDArray[Any]] | None = None,
    shard_tensors: int = 0,
) -> Path:
    """Write a model of some 100 kB to `path`: byte-level BPE, two layers, weights drawn from `seed`.

    arch: "llama" generates; "bert" only embeds (then `pooling` defaults to mean). pooling: a llama.cpp pooling type.
    is_float: weights are not quantised. is_tied: the table of tokens is the output too. added: by name, what is added
    to weights. shard_tensors: so many in a file; the files are beside `path` then, under names that number them.
    Only printable ASCII and merges have weight in the output, so greedy text is readable and never ends by itself.
    """
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=shard_tensors)
    tokens, types = _vocabulary()
    writer.add_name(name)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    if pooling is not None or arch == "bert":
        writer.add_pooling_type(gguf.PoolingType(gguf.PoolingType.MEAN if pooling is None else pooling))
    _add_tokenizer(writer, tokens, types, chat_template, add_bos)
    rng = np.random.default_rng(seed)
    tensors = _bert(writer, rng, len(tokens), n_ctx_train) if arch == "bert" else _llama(writer, rng, tokens, types)
    if is_tied:
        del tensors["output.weight"]
    for key, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType.F32 if is_float else _kind(key, tensor)
        changed = tensor + added[key] if added and key in added else tensor
        writer.add_tensor(key, gguf.quants.quantize(changed, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[str], list[gguf.TokenType]]:
    """All bytes in their printable spelling, the merges, then the control tokens."""
    alphabet = list(byte_spelling().values())
    merged = [merge.replace(" ", "") for merge in _MERGES]
    tokens = alphabet + merged + list(SPECIAL)
    kinds = [gguf.TokenType.NORMAL] * (len(alphabet) + len(merged)) + [gguf.TokenType.CONTROL] * len(SPECIAL)
    return tokens, kinds


def byte_spelling() -> dict[int, str]:
    """Byte-level BPE spells a byte as itself where it is a visible Latin-1 character, else as one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)}


def _add_tokenizer(
    writer: gguf.GGUFWriter, tokens: list[str], types: list[gguf.TokenType], template: str | None, add_bos: bool
) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(_MERGES))
    writer.add_bos_token_id(tokens.index("<|im_start|>" if not add_bos else "<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(add_bos)
    if template is not None:
        writer.add_chat_template(template)


def _llama(
    writer: gguf.GGUFWriter, rng: np.random.Generator, tokens: list[str], types: list[gguf.TokenType]
) -> dict[str, NDArray[Any]]:
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    kv_width = EMBEDDING // HEADS * KV_HEADS
    speakable = {spelt for byte, spelt in byte_spelling().items() if 0x20 <= byte < 0x7F or byte == 0x0A}
    voiced = np.array(
        [
            kind == gguf.TokenType.NORMAL and (len(token) > 1 or token in speakable)
            for token, kind in zip(tokens, types, strict=True)
        ]
    )
    tensors = {
        "token_embd.weight": _normal(rng, len(tokens), EMBEDDING),
        "output_norm.weight": np.ones(EMBEDDING, np.float32),
        "output.weight": _normal(rng, len(tokens), EMBEDDING) * voiced[:, None].astype(np.float32),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors |= {
            block + "attn_norm.weight": np.ones(EMBEDDING, np.float32),
            block + "attn_q.weight": _normal(rng, EMBEDDING, EMBEDDING),
            block + "attn_k.weight": _normal(rng, kv_width, EMBEDDING),
            block + "attn_v.weight": _normal(rng, kv_width, EMBEDDING),
            block + "attn_output.weight": _normal(rng, EMBEDDING, EMBEDDING),
            block + "ffn_norm.weight": np.ones(EMBEDDING, np.float32),
            block + "ffn_gate.weight": _normal(rng, FEED_FORWARD, EMBEDDING),
            block + "ffn_up.weight": _normal(rng, FEED_FORWARD, EMBEDDING),
            block + "ffn_down.weight": _normal(rng, EMBEDDING, FEED_FORWARD),
        }
    return tensors


def _bert(writer: gguf.GGUFWriter, rng: np.random.Generator, n_vocab: int, n_ctx_train: int) -> dict[str, NDArray[Any]]:
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    tensors = {
        "token_embd.weight": _normal(rng, n_vocab, EMBEDDING),
        "token_types.weight": _normal(rng, 2, EMBEDDING),
        "position_embd.weight": _normal(rng, n_ctx_train, EMBEDDING),
        "token_embd_norm.weight": np.ones(EMBEDDING, np.float32),
        "token_embd_norm.bias": np.zeros(EMBEDDING, np.float32),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}{part}.weight"] = _normal(rng, EMBEDDING, EMBEDDING)
            tensors[f"{block}{part}.bias"] = np.zeros(EMBEDDING, np.float32)
        for part in ("attn_output_norm", "layer_output_norm"):
            tensors[f"{block}{part}.weight"] = np.ones(EMBEDDING, np.float32)
            tensors[f"{block}{part}.bias"] = np.zeros(EMBEDDING, np.float32)
        tensors |= {
            block + "ffn_up.weight": _normal(rng, FEED_FORWARD, EMBEDDING),
            block + "ffn_up.bias": np.zeros(FEED_FORWARD, np.float32),
            block + "ffn_down.weight": _normal(rng, EMBEDDING, FEED_FORWARD),
            block + "ffn_down.bias": np.zeros(EMBEDDING, np.float32),
        }
    return tensors


def _kind(key: str, tensor: NDArray[Any]) -> gguf.GGMLQuantizationType:
    """As real small models have it. llama.cpp computes these alike for one token and for many, floats it does not."""
    if tensor.ndim == 1 or key in {"token_types.weight", "position_embd.weight"}:
        return gguf.GGMLQuantizationType.F32
    outer = key in {"token_embd.weight", "output.weight"}
    return gguf.GGMLQuantizationType.Q8_0 if outer else gguf.GGMLQuantizationType.Q4_1


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    weights: NDArray[Any] = (rng.standard_normal(shape) * shape[-1] ** -0.5 * 2.0).astype(np.float32)
    return weights
