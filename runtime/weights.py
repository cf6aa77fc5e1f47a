"""From a model to the verified local files that a runner maps."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import ModelUnusable
from runtime.gguf import Header, read_header
from runtime.gguf_checks import check_projector, check_weights
from runtime.layers import Layer
from runtime.memory import estimate_memory
from runtime.messages import MemoryNeed, ModelSpec
from runtime.model import Model
from runtime.options import LoadOptions
from runtime.recent import Recent
from storage.store import Store

_LENGTHS = ("context_length", "embedding_length")
_needs: Recent[tuple[str, ...], MemoryNeed] = Recent(64)  # of files that have passed, by their digests


def identity(model: Model) -> str:
    """What makes two models one runner: the bytes that are loaded, not the name they are asked by."""
    return "+".join(str(layer.digest) for layer in (model.weights, *model.projectors, *model.adapters))


def model_spec(store: Store, model: Model, options: LoadOptions) -> ModelSpec:
    """What the supervisor needs to load `model`, all of whose files have passed. Raises ModelUnusable, GGUFInvalid,
    BlobUnknown.
    """
    if model.adapters:
        raise ModelUnusable("models with adapters cannot be run yet")
    if len(model.projectors) > 1:
        raise ModelUnusable(f"the model has {len(model.projectors)} projectors: one is as many as can be run")
    path = _local_path(store, model, model.weights)
    projector = _local_path(store, model, model.projectors[0]) if model.projectors else None
    digests = tuple(str(layer.digest) for layer in (model.weights, *model.projectors))
    details = {key: value for key, value in model.details.items() if key not in _LENGTHS}
    return ModelSpec(
        identity=identity(model),
        path=str(path),
        options=options,
        memory=_needs.get(digests, lambda: _checked_need(model.header, path, projector)),
        trained_context=model.header.context_length,
        name=model.name.display,
        digest=model.digest.encoded,
        details=details | {"parent_model": ""},
        is_embedding=model.header.pooling_type is not None,
        projector=str(projector) if projector is not None else "",
    )


def _local_path(store: Store, model: Model, layer: Layer) -> Path:
    path = store.blobs.local_path(model.name.repository, layer.digest)
    if path is None:
        raise ModelUnusable("the weights are not in a local file")
    return path


def _checked_need(header: Header, path: Path, projector: Path | None) -> MemoryNeed:
    """What the model takes, once its files have passed. Raises GGUFInvalid."""
    with path.open("rb") as file:
        check_weights(header, file, path.stat().st_size)
    return estimate_memory(header, _projector_header(projector) if projector is not None else None)


def _projector_header(path: Path) -> Header:
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
    check_projector(header)
    return header
