"""The options of a request: what a model is loaded with, and how its tokens are drawn.

Source: the Ollama API, "Options". Layers merge key by key, later ones win: built-in defaults, the model's
`params` layer, the request's `options`. A null never resets, an unknown key is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from runtime.errors import InputInvalid, OptionInvalid


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Part of a runner's identity: another value needs another runner. 0 or None leaves the choice to the server."""

    num_ctx: int = 0
    num_batch: int = 0
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Per request. `seed` -1 draws a fresh one; `num_predict` below 0 means up to ten contexts."""

    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = field(default_factory=tuple)


_INTEGERS = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "seed", "num_predict", "top_k",
             "repeat_last_n"}  # fmt: skip
_BOOLEANS = {"use_mmap"}
_INT32 = 2**31 - 1
_MOST_STOPS, _LONGEST_STOP = 256, 1024  # each is looked for in every piece of text


def merge_options(*layers: Mapping[str, object] | None) -> tuple[LoadOptions, SampleOptions]:
    """Both kinds of option from `layers`, the last one winning key by key.

    Raises OptionInvalid for a value of the wrong JSON type, naming the option in the reference's words.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        merged.update({key: value for key, value in (layer or {}).items() if value is not None})
    typed = {key: _typed(key, value) for key, value in merged.items() if key in _KNOWN}
    load = {key: value for key, value in typed.items() if key in _LOAD}
    sample = {key: value for key, value in typed.items() if key not in _LOAD}
    return LoadOptions(**load), SampleOptions(**sample)  # type: ignore[arg-type]  # _typed has checked each


_LOAD = {field.name for field in fields(LoadOptions)}
_KNOWN = _LOAD | {field.name for field in fields(SampleOptions)}


def _typed(key: str, value: object) -> object:
    if key in _BOOLEANS:
        if not isinstance(value, bool):
            raise OptionInvalid(f'option "{key}" must be of type boolean', option=key)
        return value
    if key == "stop":
        if not isinstance(value, list):
            raise OptionInvalid(f'option "{key}" must be of type array', option=key)
        if not all(isinstance(word, str) for word in value):
            raise OptionInvalid(f'option "{key}" must be of an array of strings', option=key)
        if len(value) > _MOST_STOPS or any(len(word) > _LONGEST_STOP for word in value):
            raise InputInvalid(f'option "{key}" takes up to {_MOST_STOPS} texts of {_LONGEST_STOP} characters')
        return tuple(word for word in value if word)
    kind = "integer" if key in _INTEGERS else "float32"
    is_nan = isinstance(value, float) and math.isnan(value)  # it takes no integers of hundreds of digits
    if isinstance(value, bool) or not isinstance(value, int | float) or is_nan:
        raise OptionInvalid(f'option "{key}" must be of type {kind}', option=key)
    if key not in _INTEGERS:
        return float(max(min(value, 3.4e38), -3.4e38))
    return max(min(int(max(min(value, _INT32), -_INT32)), _INT32), -_INT32)  # truncates toward zero; infinities too
