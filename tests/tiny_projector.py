"""Projectors small enough to be written anew for every test, real layers with random weights; and small images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests import tiny_gguf
from tests.tiny_gguf import EMBEDDING, HEADS, LAYERS

VISION, VISION_HEADS, VISION_FEED_FORWARD, PATCH = 32, 2, 48, 14
Tensors = dict[str, NDArray[Any]]


def write_tiny_projector(
    path: Path,
    *,
    kind: str = "mlp",
    width: int = EMBEDDING,
    seed: int = 0,
    side: int = 56,
    sees: bool = True,
    hears: bool = False,
    heads: int = VISION_HEADS,
    grids: tuple[int, ...] = (),
    leave_out: tuple[str, ...] = (),
) -> Path:
    """Write a projector of some 50 kB to `path`, its weights drawn from `seed`.

    kind: "mlp" (LLaVA: causal, one cell a patch), "gemma3" (its cells see each other, one cell for four patches),
    "qwen2vl" (M-RoPE, the size follows the image). width: of the text model. side: pixels of the fixed image.
    sees, hears: the modalities that the header claims. grids: widths and heights in turn of what an image may be cut
    into, tiles of `side` pixels. leave_out: names of tensors that are missing.
    """
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", sees)
    writer.add_bool("clip.has_audio_encoder", hears)
    writer.add_string("clip.projector_type", {"qwen2vl": "qwen2vl_merger"}.get(kind, kind))
    writer.add_bool("clip.use_gelu", True)
    for key, number in {
        "image_size": side,
        "patch_size": PATCH,
        "embedding_length": VISION,
        "feed_forward_length": VISION_FEED_FORWARD,
        "projection_dim": width,
        "block_count": 2,  # LLaVA leaves the last one out
        "attention.head_count": heads,
        "projector.scale_factor": 2,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    if grids:
        writer.add_array("clip.vision.image_grid_pinpoints", grids)
    rng = np.random.default_rng(seed)
    tensors = _encoder(rng, side // PATCH, kind) | _projection(rng, kind, width)
    for name, tensor in tensors.items():
        if name not in leave_out:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tiny_mrope_gguf(path: Path, *, seed: int = 0) -> Path:
    """Write the tiny model of text once more, with positions of two dimensions: what "qwen2vl" goes with."""
    writer = gguf.GGUFWriter(path, "qwen2vl")
    tokens, types = tiny_gguf._vocabulary()
    writer.add_context_length(2048)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(tiny_gguf.FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    tiny_gguf._add_tokenizer(writer, tokens, types, tiny_gguf.CHAT_TEMPLATE, False)
    tensors = tiny_gguf._llama(writer, np.random.default_rng(seed), tokens, types)
    for name in [name for name in tensors if ".attn_q." in name or ".attn_k." in name or ".attn_v." in name]:
        tensors[name.replace(".weight", ".bias")] = np.zeros(tensors[name].shape[0], np.float32)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def image_bytes(
    color: tuple[int, ...] = (200, 30, 30),
    size: tuple[int, int] = (40, 30),
    *,
    file_format: str = "PNG",
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """An image file: a gradient into `color` from the upper left, so that its orientation shows. options: Pillow's."""
    columns, rows = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    shade = (2 * columns + rows)[..., None] / 3  # no two quarters of it are alike
    pixels = (shade * np.array(color[:3])).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, file_format, **options)
    return out.getvalue()


def _encoder(rng: np.random.Generator, patches: int, kind: str) -> Tensors:
    """A vision transformer of two blocks; patches: on one side of its image."""
    tensors: Tensors = {
        "v.patch_embd.weight": _normal(rng, VISION, 3, PATCH, PATCH),
        "v.post_ln.weight": np.ones(VISION, np.float32),
        "v.post_ln.bias": np.zeros(VISION, np.float32),
    }
    if kind == "qwen2vl":
        tensors["v.patch_embd.weight.1"] = _normal(rng, VISION, 3, PATCH, PATCH)
    else:
        tensors["v.position_embd.weight"] = _normal(rng, patches**2, VISION)
    for layer in range(2):
        block = f"v.blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors |= _linear(rng, block + part, VISION, VISION)
        for part in ("ln1", "ln2"):
            tensors[f"{block}{part}.weight"] = np.ones(VISION, np.float32)
            tensors[f"{block}{part}.bias"] = np.zeros(VISION, np.float32)
        tensors |= _linear(rng, block + "ffn_up", VISION_FEED_FORWARD, VISION)
        tensors |= _linear(rng, block + "ffn_down", VISION, VISION_FEED_FORWARD)
    return tensors


def _projection(rng: np.random.Generator, kind: str, width: int) -> Tensors:
    """From the encoder's width to the text model's."""
    if kind == "gemma3":
        return {
            "mm.input_projection.weight": _normal(rng, VISION, width),
            "mm.soft_emb_norm.weight": np.ones(VISION, np.float32),
        }
    merged = VISION * 4 if kind == "qwen2vl" else VISION
    return _linear(rng, "mm.0", width, merged) | _linear(rng, "mm.2", width, width)


def _linear(rng: np.random.Generator, name: str, outputs: int, inputs: int) -> Tensors:
    return {f"{name}.weight": _normal(rng, outputs, inputs), f"{name}.bias": np.zeros(outputs, np.float32)}


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    weights: NDArray[Any] = (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
    return weights
