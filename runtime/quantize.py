"""Weights of full precision, made smaller: the levels, what they start from, and doing it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path

from runtime.errors import GGUFInvalid, LevelUnsupported, QuantizeFailed, RequestCancelled
from runtime.gguf import Header, read_header
from runtime.quantizer import POLL_S, started
from runtime.runner.quantize import DEFAULT_ALIGNMENT, QuantizeSettings
from runtime.supervisor.runner_log import readable

_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15}  # general.file_type of each
_ALIASES = {"Q4_K": "Q4_K_M"}
_FULL = ("F16", "BF16", "F32")
_COUNTED = {"I8", "I16", "I32", "I64", "F64"}  # types of tables, which no level touches
_NAMED = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
_NOT_FULL = "quantization is only supported for F16, BF16 and F32 models"
_MOST_GROWTH, _MOST_MORE = 2, 16 * 1024**2  # F16 to F32 is twice the size; the header may grow a little
_ALIGNMENT = "general.alignment"
_turn = threading.Lock()


def parse_level(text: str) -> str:
    """The level that `text` names, as llama.cpp spells it, whatever its case. Raises LevelUnsupported.

    Source: the Ollama API, "POST /api/create".
    """
    level = text.upper()
    level = _ALIASES.get(level, level)
    if level not in _FILE_TYPES:
        raise LevelUnsupported(f"unsupported quantization type {readable(level, 64)} - supported types are {_NAMED}")
    return level


def check_source(header: Header) -> str:
    """The type of full precision that the weights have, for "quantizing F16 model to …". Raises LevelUnsupported.

    The file's own word on it counts where it is one of the three; what no tensor bears out does not.
    """
    bytes_of: Counter[str] = Counter()
    for tensor in header.tensors:
        if tensor.type not in _COUNTED:
            bytes_of[tensor.type] += tensor.size
    if not bytes_of or set(bytes_of) - set(_FULL):
        raise LevelUnsupported(_NOT_FULL)
    return header.file_type if header.file_type in bytes_of else bytes_of.most_common(1)[0][0]


def quantize(
    source: Path,
    target: Path,
    level: str,
    *,
    progress: Callable[[int, int], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Write the weights of `source`, a GGUF file that has passed, to `target` at `level`, which `parse_level` gave.

    progress: told how many bytes of the source's tensors are done, and of how many. is_cancelled: asked several times a
    second. In this process one waits for the other: each takes all cores. Raises QuantizeFailed, RequestCancelled;
    nothing is left at `target` then.
    """
    while not _turn.acquire(timeout=POLL_S):
        if is_cancelled():
            raise RequestCancelled("request canceled")
    try:
        header = _header(source)
        with started(_settings(source, target, level, header)) as work:
            work.follow({tensor.name: tensor.size for tensor in header.tensors}, progress, is_cancelled)
        _check_result(target, header)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        _turn.release()


def _settings(source: Path, target: Path, level: str, header: Header) -> QuantizeSettings:
    return QuantizeSettings(
        source=str(source),
        target=str(target),
        file_type=_FILE_TYPES[level],
        most_written=_MOST_GROWTH * source.stat().st_size + _MOST_MORE,
        is_aligned=header.metadata.get(_ALIGNMENT, DEFAULT_ALIGNMENT) == DEFAULT_ALIGNMENT,
        parent_pid=os.getpid(),
    )


def _check_result(target: Path, header: Header) -> None:
    """A whole file with all tensors of `header`, or QuantizeFailed."""
    try:
        made = _header(target)
    except (GGUFInvalid, OSError) as error:
        raise QuantizeFailed(f"quantization failed: the result is unusable: {error}") from None
    if _numbers(made) != _numbers(header):
        raise QuantizeFailed("quantization failed: the result is unusable: it has other tensors")


def _numbers(header: Header) -> dict[str, int]:
    """How many each tensor has."""
    return {tensor.name: prod(tensor.dims) for tensor in header.tensors}


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)
