"""From a model to the verified local file that a runner maps."""

from __future__ import annotations

from runtime.errors import ModelUnusable
from runtime.gguf import estimate_memory
from runtime.messages import ModelSpec
from runtime.model import Model
from runtime.options import LoadOptions
from storage.store import Store

_SHARDS = "split.count"
_LENGTHS = ("context_length", "embedding_length")


def identity(model: Model) -> str:
    """What makes two models one runner: the bytes that are loaded, not the name they are asked by."""
    return "+".join(str(layer.digest) for layer in (model.weights, *model.adapters))


def model_spec(store: Store, model: Model, options: LoadOptions) -> ModelSpec:
    """What the supervisor needs to load `model`. Raises ModelUnusable, BlobUnknown."""
    if model.adapters:
        raise ModelUnusable("models with adapters cannot be run yet")
    shards = model.header.metadata.get(_SHARDS, 1)
    if isinstance(shards, int) and shards > 1:
        raise ModelUnusable("the weights are one part of several: merge them before pushing")
    path = store.blobs.local_path(model.name.repository, model.weights.digest)
    if path is None:
        raise ModelUnusable("the weights are not in a local file")
    size = store.blobs.stat(model.name.repository, model.weights.digest).size
    details = {key: value for key, value in model.details.items() if key not in _LENGTHS}
    return ModelSpec(
        identity=identity(model),
        path=str(path),
        options=options,
        memory=estimate_memory(model.header, size),
        trained_context=model.header.context_length,
        name=model.name.display,
        digest=model.digest.encoded,
        details=details | {"parent_model": ""},
        is_embedding=model.header.pooling_type is not None,
    )
