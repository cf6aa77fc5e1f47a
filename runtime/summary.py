"""What a list of models shows of a stored manifest, read from it and from a few kilobytes more, once.

Models that cannot run here are shown too, with the reason: what was pushed should be seen, and say what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime import capabilities, foreign
from runtime.artifact import find_files, find_layers, read_config
from runtime.errors import GGUFInvalid, ModelUnusable, NotAModel
from runtime.layers import Layers
from runtime.model import model_details, short, strings
from runtime.recent import Recent
from storage.digest import Digest
from storage.reference import RepositoryName
from storage.store import Store

JSON = dict[str, Any]
_summaries: Recent[tuple[str, str], Summary | None] = Recent(20_000)  # about 1 kB each


@dataclass(frozen=True, slots=True)
class Summary:
    """A model in a list. `size`: bytes of all layers, as declared. reason: why it cannot run; empty where it can.

    remote: `remote_model` and `remote_host` of what runs on another server.
    """

    details: JSON
    capabilities: list[str]
    size: int
    reason: str = ""
    remote: JSON = field(default_factory=dict)


def summary(store: Store, repository: RepositoryName, digest: Digest) -> Summary | None:
    """What a list of models shows of a manifest; None when it is no model."""

    def compute() -> Summary | None:
        raw = store.repositories.get_manifest(repository, digest).raw
        try:
            return _summarise(store, repository, find_layers(store, repository, raw))
        except (GGUFInvalid, NotAModel):
            return None

    return _summaries.get((str(repository), str(digest)), compute)


def _summarise(store: Store, repository: RepositoryName, layers: Layers) -> Summary:
    config = short(foreign.config_words(layers, read_config(store, repository, layers)))
    try:
        # the parameter count alone needs the whole header, and most configs state it
        files = find_files(store, repository, layers, is_whole=not config.get("model_type"))
    except NotAModel:
        raise
    except ModelUnusable as error:
        return _unusable(layers, config, error)
    found = capabilities.merged(
        strings(config.get("capabilities")),
        capabilities.of_weights(files.header),
        capabilities.of_parser(str(config.get("parser") or ""), str(config.get("model_family"))),
        ["vision"] if files.projectors else [],
    )
    return Summary(model_details(layers, config, files.header), found, layers.size)


def _unusable(layers: Layers, config: JSON, error: ModelUnusable) -> Summary:
    """A model whose weights cannot be run: what its config says of them, or what was found out about them."""
    family = str(config.get("model_family") or error.detail.get("family") or "")
    details: JSON = {
        "parent_model": "",
        "format": str(config.get("model_format") or foreign.other_format(layers, config) or "gguf"),
        "family": family,
        "families": strings(config.get("model_families")) or ([family] if family else []),
        "parameter_size": str(config.get("model_type") or ""),
        "quantization_level": str(config.get("file_type") or ""),
    }
    remote = {key: config[key] for key in ("remote_model", "remote_host") if config.get(key)}
    return Summary(details, strings(config.get("capabilities")), layers.size, str(error), remote)
