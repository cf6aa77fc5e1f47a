"""The config of a model that is being made. Source: the Ollama registry protocol, "Config blob"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from registry.models.create.go_json import go_json
from registry.models.create.recipe import Recipe
from runtime.api.errors import Refused
from runtime.gguf import Header, parameter_text
from runtime.model import strings

JSON = dict[str, Any]
_ALWAYS: Final = ("model_format", "model_family", "model_families", "model_type", "file_type")
_SOMETIMES: Final = ("renderer", "parser", "requires", "capabilities", "context_length", "embedding_length",
                     "base_name", "draft")  # fmt: skip
_TEXTS: Final = {"model_family": "model_family", "base_name": "base_name", "quantization_level": "file_type",
                 "parameter_size": "model_type"}  # fmt: skip  # a member of `info` → one of the config
_LENGTHS: Final = ("context_length", "embedding_length")
_KINDS: Final[Mapping[str, type]] = {
    "model_families": list, "capabilities": list, "context_length": int, "embedding_length": int, "draft": dict,
}  # fmt: skip


def config_json(recipe: Recipe, inherited: JSON, weights: Header, projectors: Sequence[Header]) -> bytes:
    """The blob, with the newline that the reference writes. Raises Refused for what `info` cannot say.

    inherited: the config of the model it begins as. projectors: those that the request adds.
    """
    config = _kept(inherited)
    stated = {key: each for key, each in config.items() if each and each != "unknown"}
    config |= _facts(weights) | stated
    config["model_families"] = _families(config, projectors)
    config |= {key: text for key in ("renderer", "parser", "requires") if (text := getattr(recipe, key))}
    config |= _told(recipe.info, strings(config.get("capabilities")))
    ordered = {key: config[key] for key in _ALWAYS}
    ordered |= {key: config[key] for key in _SOMETIMES if config.get(key)}
    return (go_json(ordered | {"architecture": "amd64", "os": "linux"}) + "\n").encode("utf-8", "replace")


def level_of(header: Header) -> str:
    """The reference reads a stored 0 as absent: F32 is `unknown` there, and so it must be in these bytes."""
    return "unknown" if header.file_type == "F32" else header.file_type


def _facts(header: Header) -> JSON:
    return {
        "model_format": "gguf",
        "model_family": header.architecture,
        "model_type": parameter_text(header.parameter_count),
        "file_type": level_of(header),
    }


def _kept(inherited: JSON) -> JSON:
    """The members that we know, where they are what they should be."""
    known = {key: inherited[key] for key in (*_ALWAYS, *_SOMETIMES) if key in inherited}
    return {key: each for key, each in known.items() if isinstance(each, _KINDS.get(key, str))}


def _families(config: JSON, projectors: Sequence[Header]) -> list[str]:
    found = strings(config.get("model_families")) or [config["model_family"]]
    added = (each.architecture for each in projectors)
    return [*found, *dict.fromkeys(each for each in added if each and each not in found)]


def _told(info: JSON, capabilities: list[str]) -> JSON:
    """What `info` overrides; capabilities are added to those that are there."""
    told: JSON = {}
    for key, value in info.items():
        if value is None:
            continue
        if key in _TEXTS:
            if not isinstance(value, str):
                raise Refused(400, f'info field "{key}" must be a string')
            told[_TEXTS[key]] = value
        elif key in _LENGTHS:
            told[key] = _length(key, value)
        elif key == "capabilities":
            if not isinstance(value, list) or len(strings(value)) < len(value):
                raise Refused(400, 'info field "capabilities" must be an array of strings')
            told[key] = list(dict.fromkeys((*capabilities, *value)))
    return told


def _length(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(400, f'info field "{key}" must be a number')
    if value != value // 1 or not 0 <= value < 2**31:
        raise Refused(400, f'info field "{key}" must be a non-negative integer')
    return int(value)
