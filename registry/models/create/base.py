"""A stored model as the beginning of another one, whatever tool pushed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from registry.models.create.gguf_files import Weights
from registry.models.create.parts import Part
from registry.models.staging import Staging
from runtime.artifact import find_files, find_layers, opened, read_config
from runtime.errors import ModelUnusable
from runtime.foreign import config_words, template_layer
from runtime.layers import OLLAMA, Layer, Layers
from runtime.model import read_text
from runtime.untrusted_json import parse_json
from storage.produce import produce_blob
from storage.reference import ModelName, RepositoryName

JSON = dict[str, Any]
_COPY_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Base:
    """weights: its layers of weights; others: all its other layers, in order; params: its parameters.

    chat_template: the Jinja template that it brings, in its weights or beside them.
    """

    weights: Weights
    others: tuple[Part, ...]
    config: JSON
    params: JSON
    chat_template: str | None


def read_base(staging: Staging, name: ModelName, go_on: Callable[[], None]) -> Base:
    """The model that `name` has now; its layers say that they come from it.

    go_on: called now and then while files are unpacked. Raises NameUnknown, ManifestUnknown, BlobUnknown,
    ModelUnusable, GGUFInvalid.
    """
    store, repository = staging.store, name.repository
    tag = store.repositories.resolve_tag(repository, name.tag)
    layers = find_layers(store, repository, store.repositories.get_manifest(repository, tag).raw)
    document = read_config(store, repository, layers)
    if document.get("remote_host"):
        raise ModelUnusable("this model has no weights of its own: it runs on another server")
    files = find_files(store, repository, layers)
    parent = ModelName(repository, tag, name.host).display

    def part(layer: Layer, kind: str = "") -> Part:
        media_type = OLLAMA + kind if kind else layer.media_type
        if layer.offset:
            return _unpacked(staging, repository, layer, media_type, go_on)
        title = layer.title if kind == "model" and len(files.weights) > 1 else ""
        return Part(media_type, layer.digest, layer.size, repository, parent=parent, title=title)

    roles = {"model": files.weights, "projector": files.projectors, "adapter": files.adapters}
    used = {each.digest for found in roles.values() for each in found}
    rest = (each for each in layers.layers if each.digest not in used and not each.is_ollama("model"))
    extras = [part(each, role) for role in ("projector", "adapter") for each in roles[role]]
    return Base(
        Weights(tuple(part(each, "model") for each in files.weights), files.header),
        (*extras, *(part(each) for each in rest)),
        config_words(layers, document),
        _params(staging, repository, layers.of("params")),
        _chat_template(staging, repository, layers) or files.header.chat_template,
    )


def _chat_template(staging: Staging, repository: RepositoryName, layers: Layers) -> str | None:
    layer = template_layer(layers)
    return read_text(staging.store, repository, layer) if layer is not None else None


def _params(staging: Staging, repository: RepositoryName, layers: list[Layer]) -> JSON:
    if not layers:
        return {}
    try:
        value = parse_json(read_text(staging.store, repository, layers[-1]))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ModelUnusable("the params layer is not a JSON object")
    return value


def _unpacked(
    staging: Staging, repository: RepositoryName, layer: Layer, media_type: str, go_on: Callable[[], None]
) -> Part:
    """A file in an archive as a blob of its own: a layer is a whole blob."""

    def write(path: Path, keep: Callable[[], None]) -> None:
        with opened(staging.store, repository, layer) as (file, size), path.open("xb") as target:
            left = size
            while left and (piece := file.read(min(_COPY_BYTES, left))):
                target.write(piece)
                left -= len(piece)
                keep()
                go_on()

    blob = produce_blob(staging.store, staging.place, write, principal=staging.principal)
    return Part(media_type, blob.digest, blob.size, staging.place, is_new=True)
