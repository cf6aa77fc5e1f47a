"""The layers of a model's manifest, and which of them are weights.

Source: the Ollama API, "Layer media types"; for artifacts of other tools, what names or begins a GGUF file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import ModelUnusable
from runtime.gguf import MAGIC
from storage.digest import Digest
from storage.errors import DigestInvalid

OLLAMA = "application/vnd.ollama.image."
_TITLE = "org.opencontainers.image.title"
_RAW_WEIGHTS = {"application/vnd.cncf.model.weight.v1.raw", "application/vnd.kitops.modelkit.model.v1.raw"}
_FILEPATH = "org.cncf.model.filepath"
MAX_LAYERS = 10_000
MAX_PROBED = 16  # layers whose first bytes are read in search of weights


@dataclass(frozen=True, slots=True)
class Layer:
    """A descriptor of a manifest, as far as models need it. `parent`: the model it was derived from, if it says so."""

    media_type: str
    digest: Digest
    size: int
    title: str = ""
    parent: str = ""

    def is_ollama(self, kind: str) -> bool:
        return self.media_type == OLLAMA + kind


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

    def weights(self, probe: Callable[[Layer], bytes]) -> list[Layer]:
        """The layers that hold GGUF files, the clearest evidence first and alone: the media type, a name that ends
        in `.gguf`, the first bytes. `probe` reads the first four bytes of a layer.
        """
        if ollama := self.of("model"):
            return ollama[-1:]  # the last one wins
        if typed := [layer for layer in self.layers if "gguf" in layer.media_type.lower()]:
            return typed
        raw = [layer for layer in self.layers if layer.media_type in _RAW_WEIGHTS]
        if found := [layer for layer in raw[:MAX_PROBED] if _is_named_gguf(layer) or probe(layer) == MAGIC]:
            return found
        if named := [layer for layer in self.layers if _is_named_gguf(layer)]:
            return named
        largest = sorted(self.layers, key=lambda layer: -layer.size)[:MAX_PROBED]
        return [layer for layer in largest if layer.size > len(MAGIC) and probe(layer) == MAGIC]


def parse_layers(raw: bytes) -> Layers:
    """The layers of a stored manifest. Raises ModelUnusable."""
    try:
        manifest = json.loads(raw)
        config = manifest.get("config") if isinstance(manifest, dict) else None
        found = manifest.get("layers") or []
        if not isinstance(found, list) or len(found) > MAX_LAYERS:
            raise ModelUnusable("the manifest has no list of layers")
        has_config = isinstance(config, dict) and config.get("digest")
        return Layers(_layer(manifest["config"]) if has_config else None, tuple(_layer(each) for each in found))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, DigestInvalid):
        raise ModelUnusable("the manifest does not describe a model") from None


def _layer(descriptor: dict[str, Any]) -> Layer:
    annotations = descriptor.get("annotations") or {}
    title = annotations.get(_TITLE) or annotations.get(_FILEPATH) or ""
    size = int(descriptor.get("size") or 0)
    parent = descriptor.get("from") or ""
    return Layer(str(descriptor["mediaType"]), Digest.parse(descriptor["digest"]), size, str(title), str(parent))


def _is_named_gguf(layer: Layer) -> bool:
    return layer.title.lower().endswith(".gguf")
