"""Which files of a stored manifest are the weights, the projectors and the adapters, whatever tool pushed it.

Source: the Ollama API, "Layer media types"; for the artifacts of other tools, the order of evidence in
`Layers.weights`, then archives; what a file is for is told by its own header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from runtime import foreign
from runtime.archive import COMPRESSED, FilePart, gguf_member
from runtime.errors import GGUFInvalid, ModelUnusable, NotAModel
from runtime.gguf import Header, read_facts, read_header
from runtime.gguf_reader import MAX_HEADER_BYTES
from runtime.layers import MAX_PROBED, Layer, Layers, parse_layers
from runtime.shards import MAX_SHARDS, in_order, is_shard, joined
from runtime.untrusted_json import parse_json
from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestUnknown
from storage.reference import RepositoryName
from storage.store import Store

JSON = dict[str, Any]
MAX_CONFIG = 1024**2
_MAX_CHILDREN, _MAX_DEPTH = 32, 2
_REFUSED_COSTS = MAX_HEADER_BYTES // 8
_IMAGE_LABEL = "org.containers.type"  # of container images that carry a model
_MODEL_IMAGE = "ai.image.model"


@dataclass(frozen=True, slots=True)
class Files:
    """The GGUF files of a model. weights: one file, or all shards in order; header: what they say together."""

    weights: tuple[Layer, ...]
    header: Header
    projectors: tuple[Layer, ...] = ()
    adapters: tuple[Layer, ...] = ()


class _Headers:
    """Reads of headers, each once, of no more bytes in all than one header may have: a manifest may list hundreds."""

    def __init__(self, store: Store, repository: RepositoryName) -> None:
        self._store, self._repository = store, repository
        self._left = MAX_HEADER_BYTES
        self._whole: dict[Layer, Header] = {}

    def whole(self, layer: Layer) -> Header:
        """Raises GGUFInvalid, BlobUnknown."""
        if layer not in self._whole:
            self._whole[layer] = self._read(layer, read_header)
        return self._whole[layer]

    def facts(self, layer: Layer) -> Header:
        """What comes before the tokenizer. Raises GGUFInvalid, BlobUnknown."""
        return self._whole.get(layer) or self._read(layer, read_facts)

    def _read(self, layer: Layer, read: Callable[[BinaryIO, int], Header]) -> Header:
        if self._left <= 0:
            raise GGUFInvalid(f"not GGUF files we can read: their headers have more than {MAX_HEADER_BYTES} bytes")
        with opened(self._store, self._repository, layer) as (file, size):
            try:
                header = read(file, size)
            except GGUFInvalid:
                self._left -= min(size, _REFUSED_COSTS)  # nobody knows how far it was read
                raise
        self._left -= header.data_offset
        return header


@contextmanager
def opened(store: Store, repository: RepositoryName, layer: Layer) -> Iterator[tuple[BinaryIO, int]]:
    """The file that `layer` means, and its size. Raises BlobUnknown."""
    with store.blobs.open(repository, layer.digest) as blob:
        if layer.offset:
            yield cast("BinaryIO", FilePart(blob, layer.offset)), layer.size
        else:
            yield blob, store.blobs.stat(repository, layer.digest).size


def find_layers(store: Store, repository: RepositoryName, raw: bytes) -> Layers:
    """The layers of a manifest; of an index, those of the first model in it, one that can run if there is one.

    Raises NotAModel, BlobUnknown.
    """
    whole = _body(raw)
    if not isinstance(whole.get("manifests"), list):
        return parse_layers(raw)
    unfit: Layers | None = None
    headers = _Headers(store, repository)
    for layers in _listed(store, repository, whole):
        try:
            _find_files(store, repository, layers, headers, is_whole=False)
        except NotAModel:
            continue
        except (ModelUnusable, GGUFInvalid):
            unfit = unfit or layers
        else:
            return layers
    if unfit is None:
        raise NotAModel("the index lists no model")
    return unfit


def find_files(store: Store, repository: RepositoryName, layers: Layers, *, is_whole: bool = True) -> Files:
    """The files of a model. is_whole: read all of the headers; else what a list of models needs.

    Raises ModelUnusable, which says what else the model is made of, NotAModel, GGUFInvalid, BlobUnknown.
    """
    return _find_files(store, repository, layers, _Headers(store, repository), is_whole=is_whole)


def _find_files(
    store: Store, repository: RepositoryName, layers: Layers, headers: _Headers, *, is_whole: bool
) -> Files:
    projectors, adapters = layers.of("projector") + layers.of_docker("mmproj"), layers.of("adapter")
    roles: dict[str, list[Layer]] = {"model": [], "projector": projectors, "adapter": adapters}
    if ollama := layers.of("model"):
        roles["model"] = _shards_or_last(ollama, headers)
    else:
        rest = replace(layers, layers=tuple(each for each in layers.layers if each not in (*projectors, *adapters)))
        for find in (_plain, _packed):
            for layer in [] if roles["model"] else find(store, repository, rest):
                roles[_role(headers.facts(layer))].append(layer)
    found = roles["model"]
    if not found:
        raise _why_not(store, repository, layers)
    if len(found) == 1 and not is_whole:
        return Files((found[0],), headers.facts(found[0]), tuple(projectors), tuple(adapters))
    read = [headers.whole(layer) for layer in found]
    try:
        order = in_order(read)
        whole = joined([read[place] for place in order])
    except ModelUnusable as error:
        raise ModelUnusable(str(error), family=max(header.architecture for header in read)) from None
    return Files(tuple(found[place] for place in order), whole, tuple(projectors), tuple(adapters))


def read_config(store: Store, repository: RepositoryName, layers: Layers) -> JSON:
    """The config blob as it is; empty when there is none, or no JSON object. Raises BlobUnknown."""
    if layers.config is None or layers.config.size > MAX_CONFIG:
        return {}
    with store.blobs.open(repository, layers.config.digest) as blob:
        return _body(blob.read(MAX_CONFIG + 1))


def archives(layers: Layers, config: JSON) -> list[Layer]:
    """The layers that are tar archives in which weights may be, at most so many as are looked into."""
    runtime_config = config.get("config")
    labels = runtime_config.get("Labels") if isinstance(runtime_config, dict) else None
    is_image = isinstance(labels, dict) and str(labels.get(_IMAGE_LABEL, "")).startswith(_MODEL_IMAGE)
    found = [layer for layer in layers.layers if layer.is_archive or (is_image and ".tar" in layer.media_type)]
    return found[:MAX_PROBED]


def _plain(store: Store, repository: RepositoryName, layers: Layers) -> list[Layer]:
    """The layers of another tool's manifest that are GGUF files."""

    def probe(layer: Layer) -> bytes:
        with store.blobs.open(repository, layer.digest) as blob:
            return blob.read(4)

    found = layers.weights(probe)
    if len(found) > MAX_SHARDS:
        raise ModelUnusable(f"the manifest has {len(found)} GGUF files, allowed are {MAX_SHARDS}")
    return found


def _packed(store: Store, repository: RepositoryName, layers: Layers) -> list[Layer]:
    """The first GGUF file of each archive of another tool's manifest."""
    found = []
    for layer in archives(layers, read_config(store, repository, layers)):
        with opened(store, repository, layer) as (file, size):
            member = gguf_member(file, size)
        if member is not None:
            found.append(replace(layer, title=member.name, offset=member.offset, size=member.size))
    return found


def _why_not(store: Store, repository: RepositoryName, layers: Layers) -> ModelUnusable:
    """The reason why a manifest without GGUF files cannot run."""
    config = read_config(store, repository, layers)
    if config.get("remote_host"):
        return ModelUnusable("this model has no weights of its own: it runs on another server")
    for layer in archives(layers, config):
        with opened(store, repository, layer) as (file, _):
            compression = COMPRESSED.get(file.read(2))
        if compression is not None:
            return ModelUnusable(f"the weights are in a {compression} archive: push them in one that is not compressed")
    found = foreign.other_format(layers, foreign.config_words(layers, config))
    if found:
        return ModelUnusable(f"the weights are no GGUF file, which is all that can be run here: they are {found}")
    return NotAModel("the manifest names no GGUF weights")


def _shards_or_last(layers: list[Layer], headers: _Headers) -> list[Layer]:
    """Of several model layers the last one wins, unless it is a part: then all parts count."""
    if len(layers) == 1 or not is_shard(headers.whole(layers[-1])):
        return layers[-1:]
    if len(layers) > MAX_SHARDS:
        raise ModelUnusable(f"the manifest has {len(layers)} GGUF files, allowed are {MAX_SHARDS}")
    return [layer for layer in layers if is_shard(headers.whole(layer))]


def _role(header: Header) -> str:
    kind = header.text("general.type")
    if kind in {"mmproj", "projector"} or header.architecture == "clip":
        return "projector"
    return "adapter" if kind == "adapter" else "model"


def _listed(store: Store, repository: RepositoryName, index: JSON, depth: int = 1) -> Iterator[Layers]:
    """The manifests of an index, those first that are for no platform; what is not here is passed over."""
    children = [child for child in index["manifests"][:_MAX_CHILDREN] if isinstance(child, dict)]
    for child in sorted(children, key=lambda each: bool(each.get("platform"))):
        try:
            raw = store.repositories.get_manifest(repository, Digest.parse(str(child.get("digest")))).raw
            body = _body(raw)
            if not isinstance(body.get("manifests"), list):
                yield parse_layers(raw)
            elif depth < _MAX_DEPTH:
                yield from _listed(store, repository, body, depth + 1)
        except (DigestInvalid, ManifestUnknown, ModelUnusable):
            continue


def _body(raw: bytes) -> JSON:
    """A JSON object; an empty one for anything else."""
    try:
        body = parse_json(raw.decode())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
