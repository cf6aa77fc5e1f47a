"""From a model to the verified local files that a runner maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from runtime.adapter_checks import MAX_ADAPTERS, check_adapter
from runtime.archive import FilePart
from runtime.artifact import Files
from runtime.errors import GGUFInvalid, ModelUnusable
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
_needs: Recent[tuple[str, ...], MemoryNeed] = Recent(64)  # of files that have passed, by what they are and are for


def identity(model: Model) -> str:
    """What makes two models one runner: the bytes that are loaded, not the name they are asked by."""
    files = model.files
    return "+".join(map(_place, (*files.weights, *files.projectors, *files.adapters)))


@contextmanager
def model_spec(
    store: Store, model: Model, options: LoadOptions, *, go_on: Callable[[], None] = lambda: None
) -> Iterator[ModelSpec]:
    """What the supervisor needs to load `model`, all of whose files have passed, and stay until the block ends.

    From then on a loaded runner keeps them. go_on: called now and then while they are fetched; what it raises ends the
    waiting. Raises ModelUnusable, GGUFInvalid, and what `LocalFiles.hold` raises.
    """
    files = model.files
    _check_counts(files)
    layers = (*files.weights, *files.adapters, *files.projectors)
    with store.files.hold(model.name.repository, [layer.digest for layer in layers], go_on=go_on) as paths:
        yield _spec(model, options, paths)


@contextmanager
def header_spec(
    store: Store, model: Model, options: LoadOptions, *, go_on: Callable[[], None] = lambda: None
) -> Iterator[ModelSpec]:
    """`model_spec` for whoever reads the header of the weights alone: of those in a bucket no more is fetched."""
    weights = model.files.weights
    if len(weights) > 1 or model.weights.offset:
        with model_spec(store, model, options, go_on=go_on) as spec:
            yield spec
        return
    alone = replace(model, files=Files(weights, model.header))
    with store.files.hold_beginning(model.name.repository, model.weights.digest, model.header.data_offset) as path:
        yield _spec(alone, options, [path])


def _check_counts(files: Files) -> None:
    """Raises ModelUnusable for more files than one runner takes, or in places where it takes none."""
    if len(files.projectors) > 1:
        raise ModelUnusable(f"the model has {len(files.projectors)} projectors: one is as many as can be run")
    if len(files.adapters) > MAX_ADAPTERS:
        raise ModelUnusable(f"the model has {len(files.adapters)} adapters: {MAX_ADAPTERS} are as many as can be run")
    if any(layer.offset for layer in (*files.weights[1:], *files.projectors, *files.adapters)):
        raise ModelUnusable("only weights of one file may be in an archive: push the others as they are")


def _spec(model: Model, options: LoadOptions, paths: list[Path]) -> ModelSpec:
    """paths: of the weights, the adapters and the projector, in this order."""
    files = model.files
    roles = tuple("+".join(map(_place, each)) for each in (files.weights, files.projectors, files.adapters))
    count, adapted = len(files.weights), len(files.weights) + len(files.adapters)
    weights, adapters, projector = paths[:count], paths[count:adapted], next(iter(paths[adapted:]), None)
    details = {key: value for key, value in model.details.items() if key not in _LENGTHS}
    return ModelSpec(
        identity=identity(model),
        path=str(weights[0]),
        options=options,
        memory=_needs.get(roles, lambda: _checked_need(model, weights[0], projector, adapters)),
        trained_context=model.header.context_length,
        name=model.name.display,
        digest=model.digest.encoded,
        details=details | {"parent_model": ""},
        is_embedding=model.header.pooling_type is not None,
        projector=str(projector) if projector is not None else "",
        more_paths=tuple(map(str, weights[1:])),
        adapters=tuple(map(str, adapters)),
        offset=model.weights.offset,
    )


def _place(layer: Layer) -> str:
    """A file by its blob; one inside an archive by its place too, since a blob may look like both."""
    return f"{layer.digest}@{layer.offset}" if layer.offset else str(layer.digest)


def _checked_need(model: Model, path: Path, projector: Path | None, adapters: list[Path]) -> MemoryNeed:
    """What the model takes, once its files have passed. Raises GGUFInvalid."""
    with path.open("rb") as file:
        check_weights(model.header, cast("BinaryIO", FilePart(file, model.weights.offset)), model.weights.size)
    seeing = _header(projector, "projector") if projector is not None else None
    if seeing is not None:
        check_projector(seeing)
    changes = [_header(each, "adapter") for each in adapters]
    for change in changes:
        check_adapter(change, model.header)
    return estimate_memory(model.header, seeing, changes)


def _header(path: Path, what: str) -> Header:
    with path.open("rb") as file:
        try:
            return read_header(file, path.stat().st_size)
        except GGUFInvalid as error:
            raise GGUFInvalid(f"the {what} is {error}") from None
