"""How much memory a model takes, told from its header and how it will be loaded, before llama.cpp sees it.

The rules are llama.cpp's own, put into numbers: what it maps, what it keeps of each token, and the widest moment of
one step. They hold within a tenth of what it reports when it has loaded.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from runtime import cache_layers
from runtime.gguf import Header, Tensor
from runtime.messages import MemoryNeed

DEFAULT_STEP = 512
_TILE = 256  # cells of a lane come in multiples of this
_CACHE_SHARE = {"f16": (1, 1), "q8_0": (34, 64), "q4_0": (18, 64)}  # bytes of a block of 32 numbers, against f16
_FIXED_BYTES = 16 * 1024
_REPACKED = {  # type → any of these sets of processor features
    "Q4_0": ({"avx2"}, {"asimddp"}),
    "Q4_K": ({"avx2"}, {"asimddp"}),
    "IQ4_NL": ({"avx2"}, {"asimddp"}),
    "MXFP4": ({"avx2"}, {"asimddp"}),
    "Q2_K": ({"avx512f"},),
    "Q5_K": ({"asimddp"},),
    "Q6_K": ({"asimddp"},),
    "Q8_0": ({"asimddp"},),
}
_LAYER = re.compile(r"blk\.(\d{1,4})\.(.*)")
_LOOKED_UP = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")  # rows are taken, not multiplied


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is loaded. context: tokens of each of `parallel` sequences. step_tokens: the most of one step.

    outputs: tokens of a step whose logits are computed, at most; 0 is all of them. embeds: a context that only embeds,
    whose sequences share all cells.
    """

    context: int
    parallel: int = 1
    step_tokens: int = DEFAULT_STEP
    kv_cache_type: str = "f16"
    flash_attention: bool = True
    outputs: int = 0
    embeds: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of weights (and of a projector), of what is kept of tokens, and of what a step is computed in.

    reserve: of what is not there from the start, and comes with use.
    """

    weights: int
    cache: int
    buffers: int
    reserve: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.buffers + self.reserve


def estimate_memory(header: Header, projector: Header | None = None, adapters: Sequence[Header] = ()) -> MemoryNeed:
    """What decides how much memory the model takes. `projector`: the header of the file that reads its images.

    adapters: of the files whose matrices are added to the weights, and held beside them; what they add to a step fits
    the room of what it is added to.
    """
    caches = cache_layers.layer_caches(header)
    weights, repacked = [0] * len(caches), [0] * len(caches)
    output = 0
    for tensor in header.tensors:
        place = _LAYER.match(tensor.name)
        layer = int(place[1]) if place else -1
        if 0 <= layer < len(caches):
            weights[layer] += tensor.size
            repacked[layer] += _repacked_size(tensor)
        elif tensor.name.startswith("output"):
            output += tensor.size
    added = [tensor for adapter in adapters for tensor in adapter.tensors]
    for tensor in added:
        place = _LAYER.match(tensor.name)
        if place and int(place[1]) < len(caches):
            weights[int(place[1])] += tensor.size
    feed, attention = _widths(header)
    return MemoryNeed(
        weights_bytes=_mapped_size(header) + sum(tensor.size for tensor in added),
        kv_bytes_per_token=sum(cache.kv for cache in caches),
        compute_bytes=_FIXED_BYTES,
        window=cache_layers.window(header),
        window_bytes_per_token=sum(cache.window_kv for cache in caches),
        state_bytes=sum(cache.state for cache in caches),
        repacked_bytes=sum(map(_repacked_size, header.tensors)) + _tied_output(header),
        vocabulary=header.vocabulary_size or header.number("vocab_size") or 0,
        embedding=header.embedding_length,
        heads=max(cache_layers.head_counts(header), default=0),
        feed_width=feed,
        attention_width=attention,
        layers=tuple(
            (weight, again, cache.kv, cache.window_kv, cache.state)
            for weight, again, cache in zip(weights, repacked, caches, strict=True)
        ),
        output_bytes=output,
        projector_bytes=_projector_bytes(projector) if projector is not None else 0,
    )


def sizes_of(need: MemoryNeed, setup: Setup) -> Sizes:
    """Bytes in all, wherever they lie."""
    weights = need.weights_bytes + need.repacked_bytes + need.projector_bytes
    cache = _cache_bytes(need.kv_bytes_per_token, need.window_bytes_per_token, need.state_bytes, need, setup)
    return Sizes(weights, cache, _buffer_bytes(need, setup))


def offloaded(need: MemoryNeed, setup: Setup, layers: int) -> Sizes:
    """What goes to accelerators when the last `layers` layers do; the output counts as one more.

    The projector goes as soon as any of them does.
    """
    if layers <= 0:
        return Sizes(0, 0, 0)
    taken = need.layers[max(len(need.layers) - layers, 0) :]
    weights = sum(layer[0] for layer in taken) + (need.output_bytes if layers > len(need.layers) else 0)
    weights += need.projector_bytes
    kv, window_kv, state = (sum(layer[column] for layer in taken) for column in (2, 3, 4))
    return Sizes(weights, _cache_bytes(kv, window_kv, state, need, setup), _buffer_bytes(need, setup))


def with_offload(need: MemoryNeed, layers: int) -> MemoryNeed:
    """The same model when the last `layers` layers go elsewhere: the processor's kernels want those only once."""
    if layers <= 0:
        return need
    if layers > len(need.layers):
        return replace(need, repacked_bytes=0)
    return replace(need, repacked_bytes=need.repacked_bytes - sum(layer[1] for layer in need.layers[-layers:]))


def fitting_layers(need: MemoryNeed, setup: Setup, free_bytes: int) -> int:
    """How many layers, counted from the last and the output before all, fit `free_bytes` with their cache."""
    least, most = 0, len(need.layers) + 1
    while least < most:
        middle = (least + most + 1) // 2
        if offloaded(need, setup, middle).total <= free_bytes:
            least = middle
        else:
            most = middle - 1
    return least


def _cells(setup: Setup) -> int:
    """Tokens each lane has room for."""
    cells = max(setup.context, setup.step_tokens) if setup.embeds else setup.context
    return _padded(cells, _TILE)


def _window_cells(need: MemoryNeed, setup: Setup) -> int:
    seen = need.window * (setup.parallel if setup.embeds else 1)
    return _padded(min(_cells(setup), seen + setup.step_tokens), _TILE)


def _cache_bytes(kv: int, window_kv: int, state: int, need: MemoryNeed, setup: Setup) -> int:
    lanes = 1 if setup.embeds else setup.parallel
    numerator, denominator = _CACHE_SHARE.get(setup.kv_cache_type, (1, 1))
    tokens = kv * _cells(setup) + (window_kv * _window_cells(need, setup) if window_kv else 0)
    return tokens * lanes * numerator // denominator + state * setup.parallel


def _buffer_bytes(need: MemoryNeed, setup: Setup) -> int:
    """The widest moment of a step, in a layer or at the logits, and the room for what is read out."""
    has_cache = bool(need.kv_bytes_per_token or need.window_bytes_per_token)
    tokens = min(setup.step_tokens, _cells(setup) * max(setup.parallel, 1))
    seen = _cells(setup) if has_cache else tokens
    masked = seen + (_window_cells(need, setup) if need.window_bytes_per_token else 0)
    masks = masked * tokens * (2 if setup.flash_attention else 4) if need.heads else 0
    scores = 0 if setup.flash_attention else need.heads * seen * tokens * 4
    layer = masks + max(4 * tokens * need.feed_width, 4 * tokens * need.attention_width + scores)
    outputs = min(setup.outputs or tokens, tokens)
    logits = 4 * (outputs * need.vocabulary + 2 * tokens * need.embedding)
    read = 4 * (tokens if setup.embeds else setup.parallel) * need.vocabulary
    return need.compute_bytes + max(layer, 0 if setup.embeds and not has_cache else logits) + read


def _widths(header: Header) -> tuple[int, int]:
    """Floats a token takes in the feed-forward and in the attention of the widest layer."""
    width = header.embedding_length
    inner = header.number("ssm.inner_size") or 0
    fed = _feed_floats(header)
    heads = max(cache_layers.head_counts(header), default=0)
    cached = max(cache_layers.kv_heads(header), default=0)
    key, value = cache_layers.key_length(header), cache_layers.value_length(header)
    query = heads * key * (3 if cache_layers.is_latent(header) else 2)
    return max(3 * width + fed, width + 6 * inner), 2 * width + query + cached * (key + value)


def _feed_floats(header: Header) -> int:
    """What a feed-forward holds at once: its gate, its input and their product, of all experts that a token visits."""
    is_gated = any("ffn_gate" in tensor.name for tensor in header.tensors[:64])
    wide = max(header.per_layer("feed_forward_length") or [0], default=0) * (3 if is_gated else 1)
    used = max(header.per_layer("expert_used_count") or [0], default=0)
    if not used:
        return wide
    expert = max(header.per_layer("expert_feed_forward_length") or [0], default=0)
    return max(wide if expert else 0, used * 3 * expert if expert else used * wide)


def _mapped_size(header: Header) -> int:
    """Bytes of each file between the first and the last tensor that is used where it lies."""
    ends: dict[int, tuple[int, int]] = {}
    for tensor in header.tensors:
        if not _repacked_size(tensor):
            start, _ = ends.get(tensor.file, (tensor.offset, 0))
            ends[tensor.file] = start, tensor.offset + tensor.size
    return sum(end - start for start, end in ends.values())


def _repacked_size(tensor: Tensor) -> int:
    """Bytes of a second copy of a matrix, which the processor's kernels read instead of the mapped one."""
    is_matrix = len(tensor.dims) in {2, 3} and tensor.dims[1] % 8 == 0 and tensor.dims[1] > 1
    if not is_matrix or tensor.type not in _repacked_types() or tensor.name.startswith(_LOOKED_UP):
        return 0
    if len(tensor.dims) == 3 and "_exps" not in tensor.name:
        return 0
    return tensor.size


def _tied_output(header: Header) -> int:
    """The same for a table of embeddings that is the output as well."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    table = tensors.get("token_embd.weight")
    if table is None or "output.weight" in tensors or header.architecture in cache_layers.KEEP_NOTHING:
        return 0
    return _repacked_size(replace(table, name="output.weight"))


@lru_cache(1)
def _repacked_types() -> frozenset[str]:
    features = processor_features()
    return frozenset(name for name, sets in _REPACKED.items() if any(wanted <= features for wanted in sets))


def processor_features() -> set[str]:
    """As Linux names them; elsewhere what every such processor has had for ten years."""
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {"avx2"} if platform.machine() in {"x86_64", "AMD64"} else {"asimddp"}
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return set(found.partition(":")[2].split())


def _projector_bytes(header: Header) -> int:
    """A vision tower's weights, and one picture on its way through."""
    weights = sum(tensor.size for tensor in header.tensors)

    def number(key: str) -> int:
        return header.number(f"vision.{key}") or 0

    patch, side = number("patch_size") or 1, number("image_size")
    tokens = min(side // patch, 128) ** 2
    floats = tokens * (6 * number("embedding_length") + 2 * number("feed_forward_length"))
    return weights + 4 * (floats + 3 * min(side, 4096) ** 2)


def _padded(number: int, to: int) -> int:
    return -(-number // to) * to
