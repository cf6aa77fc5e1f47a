"""What a well-formed header may say that ends llama.cpp instead of making it refuse: asserts, overflows, huge tables.

`runtime.gguf` has read the header by then; this is asked before a model is loaded, not when it is listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from threading import Lock
from typing import BinaryIO

from runtime.errors import GGUFInvalid
from runtime.gguf import MAX_LAYERS, Header, read_strings
from runtime.gguf_reader import Span
from runtime.gguf_types import ValueType

_MOST_EXPERTS = 1024
_WIDEST = 2**24
_SCALINGS = {"none", "linear", "yarn", "longrope"}
_POOLINGS = range(5)
_PROJECTOR = "clip"
_SPLIT = "split.count"
_MOST_TOKENS = 2**20  # the largest known vocabularies have 262 k
_LONGEST_TOKEN = 2**16  # bytes
_MOST_TEXT = 2**24  # characters of all tokens; known vocabularies have some three million
_one_at_a_time = Lock()  # the names of a vocabulary may take 150 MiB


def check_weights(header: Header, file: BinaryIO, size: int) -> None:
    """Raise GGUFInvalid unless llama.cpp may be shown these weights. file: of `size` bytes, whose header it is."""
    _check_tensors(header)
    _check_shape(header)
    _check_experts(header)
    scaling = header.metadata.get(f"{header.architecture}.rope.scaling.type", "none")
    _require(isinstance(scaling, str) and scaling in _SCALINGS, "an unknown way to scale positions")
    pooling = header.number("pooling_type")
    _require(pooling is None or pooling in _POOLINGS, "an unknown pooling type")
    for key, value in header.metadata.items():
        if isinstance(value, float) and key.startswith(header.architecture):
            _require(isfinite(value) and (value >= 0 or not key.endswith("epsilon")), f"an impossible {key[:80]}")
    _check_vocabulary(header, file, size)


def check_projector(header: Header) -> None:
    """Raise GGUFInvalid unless the file reads images or sounds for another model."""
    _require(header.architecture == _PROJECTOR, "a projector of another architecture than clip")
    _check_tensors(header)


def _check_tensors(header: Header) -> None:
    parts = header.metadata.get(_SPLIT, 1)
    _require(isinstance(parts, int) and parts in {0, 1}, "a part of the weights only")
    _require(bool(header.architecture), "no architecture")
    _require(bool(header.tensors), "no tensors")
    for tensor in header.tensors:
        _require(0 not in tensor.dims, f"an empty tensor {tensor.name!r}")


def _check_shape(header: Header) -> None:
    blocks = header.block_count
    _require(0 < blocks <= MAX_LAYERS, f"{blocks} layers, allowed are 1 to {MAX_LAYERS}")
    _require((header.number("nextn_predict_layers") or 0) <= blocks, "more layers of prediction than layers")
    _require(0 < header.embedding_length <= _WIDEST, "no embedding length that can be")
    _require(header.context_length > 0, "no context length")
    heads = header.per_layer("attention.head_count") or []
    cached = header.per_layer("attention.head_count_kv") or heads
    for count, shared in zip(heads, cached, strict=False):  # a model without heads may still name some for keys
        _require(not shared or count % shared == 0, f"{count} heads that cannot share {shared} for keys")
    _require(max(heads, default=0) <= _WIDEST, "more heads than can be")
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count", "feed_forward_length"):
        _require(max(header.per_layer(key) or [0]) <= _WIDEST, f"an impossible {key}")


def _check_experts(header: Header) -> None:
    count = header.number("expert_count") or 0
    used = max(header.per_layer("expert_used_count") or [0])
    groups, used_groups = header.number("expert_group_count") or 0, header.number("expert_group_used_count") or 0
    _require(count <= _MOST_EXPERTS and used <= count and bool(used) == bool(count), "an impossible number of experts")
    _require(groups < count or not groups, "an impossible number of groups of experts")
    if groups > 1:
        _require(count % groups == 0 and 0 < used_groups < groups, "an impossible number of groups of experts")


def _check_vocabulary(header: Header, file: BinaryIO, size: int) -> None:
    stated = max(header.number("vocab_size") or 0, header.vocabulary_size)
    _require(stated <= _MOST_TOKENS, f"a vocabulary of {stated} tokens, allowed are {_MOST_TOKENS}")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Span) and tokens.type is ValueType.STRING:
        with _one_at_a_time:
            _check_tokens(read_strings(file, size, tokens, longest=_LONGEST_TOKEN))
    elif isinstance(tokens, list):
        _check_tokens(map(str, tokens))


def _check_tokens(tokens: Iterable[str]) -> None:
    names: set[bytes | int] = set()
    text = 0
    for number, token in enumerate(tokens):
        text += len(token)
        _require(text <= _MOST_TEXT, "more text in its vocabulary than can be")
        names.add(_name(number, token))
        _require(len(names) == number + 1, "two tokens of one text in its vocabulary")


def _name(number: int, token: str) -> bytes | int:
    """What llama.cpp knows a token by: its text up to a NUL. Bytes that are no text are not compared.

    As bytes: a text takes four for each of its characters where one of them is rare.
    """
    if "\ufffd" in token:
        return number
    return (token.partition("\0")[0] or f"[EMPTY_{number}]").encode()


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise GGUFInvalid(f"not a GGUF file that can be run: it has {otherwise}")
