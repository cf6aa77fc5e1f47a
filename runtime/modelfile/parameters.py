"""The value of a PARAMETER line, typed by its option. Source: the Ollama API, "Mapping to a create request"."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import fields
from typing import Final

from runtime.errors import ModelfileInvalid
from runtime.options import LoadOptions, SampleOptions

DEPRECATED: Final = frozenset(
    ("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat", "mirostat_tau",
     "mirostat_eta")
)  # fmt: skip
LEGACY_PARAMETERS: Final = frozenset(
    ("numa", "num_gqa", "tfs_z", "embedding_only", "rope_frequency_base", "rope_frequency_scale")
)  # what clients of the legacy create form still say

_TRUE, _FALSE = (
    frozenset(("1", "t", "T", "true", "TRUE", "True")),
    frozenset(("0", "f", "F", "false", "FALSE", "False")),
)
_INT: Final = re.compile(r"[+-]?[0-9]{1,64}")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]{1,64}\.?[0-9]{0,64}|\.[0-9]{1,64})(?:[eE][+-]?[0-9]{1,8})?")
_OPTIONS: Final = (*fields(LoadOptions), *fields(SampleOptions))
_KINDS: Final = {option.name: str(option.type).removesuffix(" | None") for option in _OPTIONS} | {
    "draft_num_predict": "int"
}


def parameter(name: str, text: str) -> object:
    """An int, a float, a bool or, for an option that takes several, a list of one text. Raises ModelfileInvalid."""
    kind = _KINDS.get(name)
    if kind is None:
        raise ModelfileInvalid(f"unknown parameter '{name[:200]}'")
    if kind not in _READERS:
        return [text]
    value = _READERS[kind](text)
    if value is None:
        raise ModelfileInvalid(f"invalid {kind} value [{text[:200]}]")
    return value


def _int(text: str) -> int | None:
    value = int(text) if _INT.fullmatch(text) else 2**63
    return value if -(2**63) <= value < 2**63 else None


def _float(text: str) -> float | None:
    return _single(float(text)) if _FLOAT.fullmatch(text) else None


def _bool(text: str) -> bool | None:
    return True if text in _TRUE else False if text in _FALSE else None


def _single(value: float) -> float | None:
    """The shortest decimal number with the same single-precision value, which is what the reference stores."""
    try:
        packed = struct.pack("<f", value)
    except OverflowError:
        return None
    if not math.isfinite(value):
        return None
    single: float = struct.unpack("<f", packed)[0]
    shorter = (float(f"{single:.{digits}g}") for digits in range(1, 9))
    return next((short for short in shorter if _packs_to(short, packed)), float(f"{single:.9g}"))


def _packs_to(value: float, packed: bytes) -> bool:
    try:
        return struct.pack("<f", value) == packed
    except OverflowError:  # rounded up, past the largest
        return False


_READERS = {"int": _int, "float": _float, "bool": _bool}
