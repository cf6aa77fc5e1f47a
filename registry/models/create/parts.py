"""The layers of a model in the making. Source: the Ollama registry protocol, "Manifest JSON", "Layer media types"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry.models.create.go_json import go_json
from registry.models.staging import Staging
from runtime.api.errors import Refused
from runtime.layers import OLLAMA
from runtime.model import MAX_TEXT_LAYER
from storage.digest import Digest
from storage.manifest import DOCKER_MANIFEST
from storage.reference import RepositoryName

JSON = dict[str, Any]
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_TITLE: Final = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class Part:
    """A layer to be, or the config. home: the repository that holds its bytes now; parent: the model it comes from.

    title: its file's name, where that matters; is_new: these bytes have just come.
    """

    media_type: str
    digest: Digest
    size: int
    home: RepositoryName
    parent: str = ""
    title: str = ""
    is_new: bool = False

    def is_a(self, *kinds: str) -> bool:
        """Whether it is a layer of one of these Ollama kinds."""
        return self.media_type in {OLLAMA + kind for kind in kinds}

    @property
    def status(self) -> str:
        """What is told of it on the way."""
        return f"{'creating new' if self.is_new else 'using existing'} layer {self.digest}"

    @property
    def descriptor(self) -> JSON:
        told: JSON = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        told |= {"from": self.parent} if self.parent else {}
        return told | ({"annotations": {_TITLE: self.title}} if self.title else {})


def written_part(staging: Staging, target: RepositoryName, media_type: str, data: bytes) -> Part:
    """Text of the request as a layer. Raises Refused where it is longer than a model's texts may be.

    Whether it is new is judged by what the caller put here, and by what the model's own repository holds.
    """
    if len(data) > MAX_TEXT_LAYER:
        raise Refused(400, f"{media_type.rpartition('.')[2]} is larger than {MAX_TEXT_LAYER} bytes")
    is_known = staging.holds(Digest.of(data)) or staging.holds(Digest.of(data), target)
    blob = staging.put(data)
    return Part(media_type, blob.digest, blob.size, staging.place, is_new=not is_known)


def without(parts: Iterable[Part], *kinds: str) -> list[Part]:
    return [part for part in parts if not part.is_a(*kinds)]


def manifest_json(config: Part, layers: Sequence[Part]) -> bytes:
    """The bytes that the reference's own push would send for the same model."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return go_json(manifest).encode("utf-8", "replace")
