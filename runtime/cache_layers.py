"""What each layer keeps of the tokens before: keys and values of all, of a window, or a state of fixed size.

llama.cpp decides this by architecture; so do the tables here. An architecture they do not name keeps everything, in
every layer, which is never too little.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.gguf import Header
from runtime.gguf_reader import Value

_F16 = 2
_F32 = 4


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Bytes of one layer, keys and values as f16: a token, a token inside the window, a sequence."""

    kv: int = 0
    window_kv: int = 0
    state: int = 0


# Compute all tokens of an input at once, and keep nothing.
KEEP_NOTHING = {
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1",
}  # fmt: skip
_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
_HYBRID = {
    "jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "kimi-linear",
    "bailingmoe3", "kimi-k3", "glm5-next",
}  # fmt: skip  # a layer without heads for keys is recurrent
_INTERVAL = {"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"}  # every nth layer is not recurrent
_WINDOW_PERIOD = {
    "afmoe": 4, "cohere2": 4, "cohere2moe": 4, "exaone-moe": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5,
    "gpt-oss": 2, "laguna": 4, "llama4": 4, "mellum": 4, "muse-glimmer": 4, "olmo2": 4, "plamo3": 8, "smallthinker": 4,
}  # fmt: skip  # one layer of so many sees everything
_WINDOW_LISTED = {"gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35", "dots3note"}
_FULL_FIRST = {"cohere2moe", "laguna", "smallthinker"}
_WINDOW_FIXED = {"llama4": 8192, "smallthinker": 4096}  # whatever the header says, if it speaks of a window at all
_WINDOW_DEFAULT = {"gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "llama4": 8192}
_PATTERN = "attention.sliding_window_pattern"


def layer_caches(header: Header) -> list[LayerCache]:
    """What each layer keeps, first to last."""
    count = header.layer_count
    arch = header.architecture
    if arch in KEEP_NOTHING:
        return [LayerCache()] * count
    recurrent = _recurrent_layers(header)
    state = _state_bytes(header) if any(recurrent) else 0
    windowed = _windowed_layers(header)
    attends = arch not in _RECURRENT
    shared_from = _first_shared(header)
    caches = []
    for layer in range(count):
        keeps = attends and layer < shared_from and (not recurrent[layer] or arch == "falcon-h1")
        kv = _kv_bytes(header, layer, windowed[layer]) if keeps else 0
        inside, outside = (kv, 0) if windowed[layer] else (0, kv)
        caches.append(LayerCache(outside, inside, state if recurrent[layer] else 0))
    return caches


def window(header: Header) -> int:
    """How many tokens a windowed layer sees; 0 where the model has none."""
    arch = header.architecture
    stated = header.number("attention.sliding_window")
    if arch == "exaone4" and header.layer_count != 64:
        return 0
    if (arch not in _WINDOW_PERIOD and arch not in _WINDOW_LISTED) or stated == 0:
        return 0
    if arch in _WINDOW_FIXED and (stated or arch in _WINDOW_DEFAULT):
        return _WINDOW_FIXED[arch]
    return stated or _WINDOW_DEFAULT.get(arch, 0)


def is_latent(header: Header) -> bool:
    """Whether keys and values are computed from one compressed vector, so that only that is kept."""
    return bool(header.number("attention.key_length_mla") and header.number("attention.value_length_mla"))


def key_length(header: Header, *, windowed: bool = False) -> int:
    return _head_size(header, "attention.key_length", windowed=windowed)


def value_length(header: Header, *, windowed: bool = False) -> int:
    return _head_size(header, "attention.value_length", windowed=windowed)


def kv_heads(header: Header) -> list[int]:
    return header.per_layer("attention.head_count_kv") or head_counts(header)


def head_counts(header: Header) -> list[int]:
    return header.per_layer("attention.head_count") or [0] * header.layer_count


def _head_size(header: Header, key: str, *, windowed: bool) -> int:
    heads = head_counts(header)
    if not heads or not heads[0]:
        return 0
    full = header.number(key)
    size = header.embedding_length // heads[0] if full is None else full
    inside = header.number(f"{key}_swa") if windowed else None
    return size if inside is None else inside


def _kv_bytes(header: Header, layer: int, windowed: bool) -> int:
    numbers = key_length(header, windowed=windowed)
    if not is_latent(header):
        numbers += value_length(header, windowed=windowed)
    return _F16 * kv_heads(header)[layer] * numbers


def _windowed_layers(header: Header) -> list[bool]:
    count, arch = header.layer_count, header.architecture
    if not window(header):
        return [False] * count
    listed: Value | None = header.metadata.get(f"{arch}.{_PATTERN}")
    if isinstance(listed, list):
        return [bool(item) for item in listed[:count]] + [False] * (count - len(listed))
    stated = header.number(_PATTERN)
    period = _WINDOW_PERIOD.get(arch, 1) if stated is None else stated
    if not period:
        return [True] * count
    full = 0 if arch in _FULL_FIRST else period - 1
    return [layer % period != full for layer in range(count)]


def _recurrent_layers(header: Header) -> list[bool]:
    count, arch = header.layer_count, header.architecture
    if arch in _RECURRENT or arch == "falcon-h1":
        return [True] * count
    if arch in _INTERVAL:
        listed = header.per_layer("attention.recurrent_layers")
        interval = header.number("full_attention_interval") or 4
        return [bool(n) for n in listed] if listed else [(layer + 1) % interval != 0 for layer in range(count)]
    if arch not in _HYBRID:
        return [False] * count
    fed = header.per_layer("feed_forward_length") or [0] * count
    fed = fed if arch.startswith("nemotron") else [0] * count  # there a layer may do nothing but feed forward
    return [heads == 0 and not wide for heads, wide in zip(kv_heads(header), fed, strict=True)]


def _first_shared(header: Header) -> int:
    """From this layer on, keys and values are those of an earlier one."""
    count = header.layer_count - (header.number("nextn_predict_layers") or 0)
    if header.architecture == "gemma3n":
        return min(20, count)
    return count - (header.number("attention.shared_kv_layers") or 0) if header.architecture == "gemma4" else count


def _state_bytes(header: Header) -> int:
    """Of one recurrent layer and one sequence: the inputs of its convolution or token shift, and its state."""
    width = header.embedding_length
    if head := header.number("wkv.head_size"):
        return _F32 * width * ((header.number("token_shift_count") or 2) + head)
    if taps := header.number("shortconv.l_cache"):
        return _F32 * width * (taps - 1)
    kernel, groups = header.number("ssm.conv_kernel") or 0, header.number("ssm.group_count") or 0
    if head := header.number("kda.head_dim"):
        inner = max(head_counts(header), default=0) * head
        return _F32 * inner * (3 * (kernel - 1 if kernel else 3) + head)
    inner, state = header.number("ssm.inner_size") or 0, header.number("ssm.state_size") or 0
    return _F32 * (max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner)
