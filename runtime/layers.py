"""The layers of a model's manifest, and which of them hold GGUF files.

Source: the Ollama API, "Layer media types"; for artifacts of other tools, what names or begins a GGUF file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import NotAModel
from runtime.gguf import MAGIC
from storage.digest import Digest
from storage.errors import DigestInvalid

OLLAMA = "application/vnd.ollama.image."
DOCKER = "application/vnd.docker.ai."
_TITLE = "org.opencontainers.image.title"
_FILEPATH = "org.cncf.model.filepath"
_UNPACKED = "io.deis.oras.content.unpack"
_RAW_WEIGHTS = {"application/vnd.cncf.model.weight.v1.raw", "application/vnd.kitops.modelkit.model.v1.raw"}
_ARCHIVED_WEIGHTS = re.compile(
    r"application/vnd\.(?:cncf\.model\.weight|kitops\.modelkit\.model(?:part)?)\.v1\.tar(?:\+\w+)?"
)
_SHARD_NAME = re.compile(r"-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
MAX_LAYERS = 10_000
MAX_PROBED = 16  # layers whose first bytes are read in search of weights
_LONGEST_TITLE = 1024


@dataclass(frozen=True, slots=True)
class Layer:
    """A descriptor of a manifest, as far as models need it. `parent`: the model it was derived from, if it says so.

    offset: where the file that is meant begins in the blob; `size` is that file's. Neither 0 nor the blob's where the
    file is in an archive.
    """

    media_type: str
    digest: Digest
    size: int
    title: str = ""
    parent: str = ""
    is_folder: bool = False  # packed by oras
    offset: int = 0

    def is_ollama(self, kind: str) -> bool:
        return self.media_type == OLLAMA + kind

    @property
    def is_archive(self) -> bool:
        """Whether it is said to be a packed folder; one file that only bears the type of an archive is none."""
        return self.is_folder or _ARCHIVED_WEIGHTS.fullmatch(self.media_type) is not None

    @property
    def file_name(self) -> str:
        """The last part of its title, in small letters."""
        return self.title.rpartition("/")[2].lower()


@dataclass(frozen=True, slots=True)
class Layers:
    """A manifest's config and layers, in order."""

    config: Layer | None
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers and the config, as declared."""
        return sum(layer.size for layer in self.layers) + (self.config.size if self.config else 0)

    def of(self, *kinds: str) -> list[Layer]:
        """The layers of these Ollama kinds, e.g. `template`."""
        return [layer for layer in self.layers if any(layer.is_ollama(kind) for kind in kinds)]

    def of_docker(self, kind: str) -> list[Layer]:
        """The layers of this kind of Docker's models, e.g. `mmproj`."""
        return [layer for layer in self.layers if layer.media_type == DOCKER + kind]

    def named(self, matches: Callable[[str], bool]) -> list[Layer]:
        """The layers of other tools that are files with such a name, in small letters and without its folders."""
        named = (layer for layer in self.layers if layer.title and not layer.is_archive)
        return [layer for layer in named if matches(layer.file_name)]

    def weights(self, probe: Callable[[Layer], bytes]) -> list[Layer]:
        """The layers that hold GGUF files, the clearest evidence first and alone: the media type, a name that ends
        in `.gguf`, the first bytes. `probe` reads the first four bytes of a layer.
        """
        if ollama := self.of("model"):
            return ollama if _are_shards(ollama) else ollama[-1:]  # of several models the last one wins
        if typed := [layer for layer in self.layers if "gguf" in layer.media_type.lower()]:
            return typed
        if found := list(_raw(self.layers, probe)):
            return found
        if named := self.named(_is_gguf):
            return named
        largest = sorted(self.layers, key=lambda layer: -layer.size)[:MAX_PROBED]
        return [layer for layer in largest if layer.size > len(MAGIC) and probe(layer) == MAGIC]


def parse_layers(raw: bytes) -> Layers:
    """The layers of a stored manifest. Raises NotAModel."""
    try:
        manifest = json.loads(raw)
        config = manifest.get("config") if isinstance(manifest, dict) else None
        found = manifest.get("layers") or []
        if not isinstance(found, list) or len(found) > MAX_LAYERS:
            raise NotAModel("the manifest has no list of layers")
        has_config = isinstance(config, dict) and config.get("digest")
        return Layers(_layer(manifest["config"]) if has_config else None, tuple(_layer(each) for each in found))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, DigestInvalid):
        raise NotAModel("the manifest does not describe a model") from None


def _layer(descriptor: dict[str, Any]) -> Layer:
    annotations = descriptor.get("annotations") or {}
    title = annotations.get(_TITLE) or annotations.get(_FILEPATH) or ""
    return Layer(
        media_type=str(descriptor["mediaType"]),
        digest=Digest.parse(descriptor["digest"]),
        size=int(descriptor.get("size") or 0),
        title=str(title)[:_LONGEST_TITLE],
        parent=str(descriptor.get("from") or ""),
        is_folder=annotations.get(_UNPACKED) == "true",
    )


def _raw(layers: Sequence[Layer], probe: Callable[[Layer], bytes]) -> Iterator[Layer]:
    probed = 0
    for layer in layers:
        if layer.media_type not in _RAW_WEIGHTS:
            continue
        if _is_gguf(layer.file_name):
            yield layer
        elif probed < MAX_PROBED:
            probed += 1
            if probe(layer) == MAGIC:
                yield layer


def _are_shards(layers: Sequence[Layer]) -> bool:
    return len(layers) > 1 and all(_SHARD_NAME.search(layer.title) for layer in layers)


def _is_gguf(name: str) -> bool:
    return name.endswith(".gguf")
