"""Models in a real store, without HTTP: what `push` leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from migrations.run import upgrade
from runtime import weights as loadable
from runtime.messages import ModelSpec
from runtime.model import Model
from runtime.options import LoadOptions
from storage.digest import Digest
from storage.reference import ModelName
from storage.store import Store
from tests.backends import store_of
from tests.databases import url_of

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
OLLAMA = "application/vnd.ollama.image."


def open_store(path: Path) -> Store:
    """An empty store, that of the data folder `path`."""
    url = url_of(path)
    upgrade(url)
    return store_of(path)


def model_spec(store: Store, model: Model, options: LoadOptions) -> ModelSpec:
    """What the supervisor is told of a model whose files stay anyway."""
    with loadable.model_spec(store, model, options) as spec:
        return spec


def push_model(
    store: Store, name: str, weights: Path | None, *, config: dict[str, Any] | None = None, **layers: str | bytes
) -> Digest:
    """Store a model; `layers` by Ollama kind, e.g. `system="be brief"`. Returns the manifest's digest."""
    described = [(OLLAMA + "model", weights.read_bytes())] if weights is not None else []
    described += [(OLLAMA + kind, raw.encode() if isinstance(raw, str) else raw) for kind, raw in layers.items()]
    return push_layers(store, name, described, config=config or {})


def push_layers(
    store: Store,
    name: str,
    layers: list[tuple[str, bytes]],
    *,
    config: dict[str, Any] | None = None,
    titles: tuple[str, ...] = (),
) -> Digest:
    """Store a manifest of (media type, bytes), with file names where given."""
    target = ModelName.parse(name)
    raw_config = json.dumps(config or {}).encode()
    descriptors = []
    for media_type, data in layers:
        digest = store.blobs.put(target.repository, data).digest
        descriptors.append({"mediaType": media_type, "digest": str(digest), "size": len(data)})
    for descriptor, title in zip(descriptors, titles, strict=False):
        descriptor["annotations"] = {"org.opencontainers.image.title": title}
    digest = store.blobs.put(target.repository, raw_config).digest
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": str(digest), "size": len(raw_config)},
        "layers": descriptors,
    }
    raw = json.dumps(manifest).encode()
    return store.repositories.put_manifest(target.repository, target.tag, raw, MANIFEST_TYPE).digest
