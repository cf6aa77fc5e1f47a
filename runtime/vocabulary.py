"""A model's vocabulary without its weights: enough to tell tokens, at a hundredth of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from runtime.gguf import Header
from runtime.gguf_reader import Span
from runtime.messages import MemoryNeed, ModelSpec
from runtime.model import Model
from runtime.options import LoadOptions
from runtime.weights import header_spec, identity
from storage.store import Store

_FIXED_BYTES = 1024**2
_ENTRY_BYTES = 256  # of a token or a merge, in tables and as text; 170 were measured


@contextmanager
def vocabulary_spec(store: Store, model: Model, *, go_on: Callable[[], None] = lambda: None) -> Iterator[ModelSpec]:
    """What the supervisor needs to tell tokens of `model`, be its weights loaded or not; as `model_spec` gives it.

    How it would be loaded does not matter to them.
    """
    with header_spec(store, model, LoadOptions(num_gpu=0), go_on=go_on) as spec:
        yield replace(
            spec,
            identity=f"vocabulary of {spec.identity}",
            vocabulary_of=identity(model),
            memory=vocabulary_memory(model.header),
            projector="",
            adapters=(),
        )


def vocabulary_memory(header: Header) -> MemoryNeed:
    """What the vocabulary takes where no weights are loaded."""
    entries = header.vocabulary_size + _length(header, "tokenizer.ggml.merges")
    return MemoryNeed(weights_bytes=0, kv_bytes_per_token=0, compute_bytes=_FIXED_BYTES + entries * _ENTRY_BYTES)


def _length(header: Header, key: str) -> int:
    array = header.metadata.get(key)
    return array.length if isinstance(array, Span) else len(array) if isinstance(array, list) else 0
