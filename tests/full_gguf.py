"""A language model as it is before anybody made it smaller: matrices of full precision, rows of a chosen width."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests import tiny_gguf
from tests.tiny_gguf import CHAT_TEMPLATE, HEADS, LAYERS

_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}


def write_full_gguf(
    path: Path, kind: str = "F16", *, width: int = 64, layers: int = LAYERS, alignment: int = 0, seed: int = 0
) -> Path:
    """Write a llama of some hundred kB to `path`, its matrices of type `kind`, their rows `width` numbers.

    alignment: where tensors begin, in bytes; 0 says nothing of it.
    """
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    rng = np.random.default_rng(seed)
    tokens, types = tiny_gguf._vocabulary()
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_file_type(_FILE_TYPES[kind])
    tiny_gguf._add_tokenizer(writer, tokens, types, CHAT_TEMPLATE, False)
    rows = {"token_embd": len(tokens), "output": len(tokens)}
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    rows |= {f"blk.{layer}.{name}": width for layer in range(layers) for name in names}
    for name, count in rows.items():
        matrix = tiny_gguf._normal(rng, count, width)
        stored = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(matrix, stored), raw_dtype=stored)
    norms = [f"blk.{layer}.{name}_norm" for layer in range(layers) for name in ("attn", "ffn")]
    for name in ("output_norm", *norms):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
