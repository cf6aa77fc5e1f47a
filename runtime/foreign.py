"""What other tools say of a model, in our words: their config documents, licences and templates; and what kinds of
model there are that cannot run here.

Source: the config documents of Docker's models, of the CNCF ModelPack specification and of KitOps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runtime.layers import DOCKER, OLLAMA, Layer, Layers

JSON = dict[str, Any]
_DOCKER_CONFIG = re.compile(r"application/vnd\.docker\.ai\.model\.config\.v\d.*")
_MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
_KITFILE = "application/vnd.kitops.modelkit.config.v1+json"
_WORDS = {"parameters": "model_type", "paramSize": "model_type", "quantization": "file_type"}
_LENGTHS = {"context_size": "context_length"}
_FORMATS = re.compile(r"safetensors|dduf|onnx|pytorch|tensorrt|mlx|gguf", re.IGNORECASE)
_LICENSE = re.compile(r"licen[sc]es?(\.(txt|md))?")
_TEMPLATE = "chat_template.jinja"
_MAX_LICENSES = 32


def config_words(layers: Layers, config: JSON) -> JSON:
    """The config document as Ollama would have written it: what it is silent about, the weights tell themselves."""
    kind = layers.config.media_type if layers.config is not None else ""
    inner = _object(config, "config")
    if kind == _KITFILE:
        return _of_format(_object(config, "model").get("format"))
    is_ours = kind != _MODELPACK_CONFIG and not _DOCKER_CONFIG.fullmatch(kind) and not _looks_foreign(config)
    if is_ours:
        return config
    words = {ours: _compact(inner[theirs]) for theirs, ours in _WORDS.items() if isinstance(inner.get(theirs), str)}
    lengths = {ours: inner[theirs] for theirs, ours in _LENGTHS.items() if _is_count(inner.get(theirs))}
    return _of_format(inner.get("format")) | {key: text for key, text in words.items() if text} | lengths


def licenses(layers: Layers, config: JSON) -> list[str]:
    """The names of licences that the config document states."""
    model, package, told = _object(config, "model"), _object(config, "package"), _object(config, "descriptor")
    stated = told.get("licenses")
    found = [package.get("license"), model.get("license"), *(stated if isinstance(stated, list) else [])]
    kind = layers.config.media_type if layers.config is not None else ""
    if kind not in {_KITFILE, _MODELPACK_CONFIG}:
        return []
    return list(dict.fromkeys(text for text in found if isinstance(text, str) and text))[:_MAX_LICENSES]


def license_layers(layers: Layers) -> list[Layer]:
    """The layers that are a licence's text."""
    found = layers.of("license") + layers.of_docker("license")
    found += [layer for layer in layers.named(lambda name: _LICENSE.fullmatch(name) is not None) if layer not in found]
    return found[:_MAX_LICENSES]


def template_layer(layers: Layers) -> Layer | None:
    """The layer that is a Jinja chat template. Never one of Ollama's: those are of another language."""
    found = layers.of_docker("chat.template.jinja") + layers.named(lambda name: name == _TEMPLATE)
    return found[0] if found else None


def other_format(layers: Layers, config: JSON) -> str:
    """The format of the weights of a model that is none of GGUF files, e.g. `safetensors`; "" for what is no model.

    config: in Ollama's words.
    """
    if layers.of("tensor"):
        return "safetensors"
    for layer in layers.layers:
        found = _FORMATS.search(layer.media_type) if layer.media_type.startswith(DOCKER) else None
        if found is not None:
            return found[0].lower()
    if not _is_model(layers):
        return ""
    named = layers.named(lambda name: _FORMATS.fullmatch(name.rpartition(".")[2]) is not None)
    stated = str(config.get("model_format") or "")
    return stated or (named[0].file_name.rpartition(".")[2] if named else "of a format that the manifest does not tell")


def _is_model(layers: Layers) -> bool:
    """Whether the config, or a layer, has a type that only models have."""
    kind = layers.config.media_type if layers.config is not None else ""
    is_known = kind in {_KITFILE, _MODELPACK_CONFIG} or _DOCKER_CONFIG.fullmatch(kind) is not None
    return is_known or any(layer.media_type.startswith(OLLAMA + "json") for layer in layers.layers)


def _looks_foreign(config: JSON) -> bool:
    """Where the media type does not tell: members that only the documents of others have."""
    inner, told = _object(config, "config"), _object(config, "descriptor")
    is_modelpack = "modelfs" in config or "paramSize" in inner or "createdAt" in told
    return is_modelpack or ("created" in told and "format" in inner)


def _of_format(value: object) -> JSON:
    found = _FORMATS.search(value) if isinstance(value, str) else None
    return {"model_format": found[0].lower()} if found else {}


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _compact(text: str) -> str:
    """`361.82 M` as `361.82M`, `8b` as `8B`: how lists of models have it."""
    joined = "".join(text.split())[:64]
    return joined.upper() if re.fullmatch(r"[\d.]+[kmbt]", joined) else joined


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
