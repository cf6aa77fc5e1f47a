"""Weights made smaller while the client is told how far it has come.

Source: the Ollama API, "POST /api/create", `quantize`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from registry.models.create.gguf_files import Weights
from registry.models.create.parts import Part
from registry.models.staging import Staging
from runtime.api.errors import Refused
from runtime.errors import GGUFInvalid, LevelUnsupported, RequestCancelled
from runtime.gguf import Header, read_header
from runtime.gguf_checks import check_weights
from runtime.quantize import check_source, parse_level, quantize
from storage.blobs import BlobInfo
from storage.produce import produce_blob

JSON = dict[str, Any]
NO_DIGEST: Final = "0" * 19  # clients cut a name out of it
_TELL_S: Final = 0.1


@dataclass(slots=True)
class _State:
    """What the thread that quantises and the one that answers say to each other."""

    total: int
    done: int = 0
    is_unwanted: threading.Event = field(default_factory=threading.Event)

    def tell(self, done: int, total: int) -> None:
        self.done, self.total = done, total


def parsed_level(text: str) -> str:
    """Raises Refused."""
    try:
        return parse_level(text)
    except LevelUnsupported as error:
        raise Refused(400, str(error)) from None


def quantized(
    staging: Staging, weights: Weights, level: str, is_cancelled: Callable[[], bool]
) -> Generator[JSON, None, Weights]:
    """The weights at `level`, with lines on the way; themselves where they are at it already.

    Whoever leaves the generator ends the work, and nothing of it is left. Raises Refused, GGUFInvalid,
    QuantizeFailed, RequestCancelled, StorageError.
    """
    if weights.header.file_type == level:
        return weights
    kind = _checked_source(weights)
    status = f"quantizing {kind} model to {level}"
    state = _State(sum(tensor.size for tensor in weights.header.tensors))
    with ThreadPoolExecutor(1, thread_name_prefix="quantize") as pool:
        work = pool.submit(_quantize, staging, weights.parts[0], level, state, is_cancelled)
        try:
            while not wait([work], timeout=_TELL_S).done:
                yield _line(status, state)
        finally:
            state.is_unwanted.set()
        blob = work.result()
    yield _line(status, state)
    return _of_blob(staging, weights.parts[0], blob)


def _checked_source(weights: Weights) -> str:
    """The type that the weights are of. Raises Refused."""
    if len(weights.parts) > 1:
        raise Refused(400, "weights in several files cannot be quantized: merge them first")
    try:
        return check_source(weights.header)
    except LevelUnsupported as error:
        raise Refused(400, str(error)) from None


def _quantize(staging: Staging, part: Part, level: str, state: _State, is_cancelled: Callable[[], bool]) -> BlobInfo:
    def go_on() -> None:
        if state.is_unwanted.is_set() or is_cancelled():
            raise RequestCancelled("request canceled")

    with staging.store.files.hold(part.home, [part.digest], go_on=go_on) as (source,):
        try:
            with source.open("rb") as file:
                check_weights(read_header(file, part.size), file, part.size)
        except GGUFInvalid as error:
            raise Refused(400, str(error)) from None

        def write(path: Path, keep: Callable[[], None]) -> None:
            def is_unwanted() -> bool:
                keep()
                return state.is_unwanted.is_set() or is_cancelled()

            quantize(source, path, level, progress=state.tell, is_cancelled=is_unwanted)

        return produce_blob(staging.store, staging.place, write, principal=staging.principal)


def _of_blob(staging: Staging, part: Part, blob: BlobInfo) -> Weights:
    header = _header(staging, blob)
    return Weights((Part(part.media_type, blob.digest, blob.size, staging.place, part.parent, is_new=True),), header)


def _header(staging: Staging, blob: BlobInfo) -> Header:
    with staging.store.blobs.open(staging.place, blob.digest) as file:
        return read_header(file, blob.size)


def _line(status: str, state: _State) -> JSON:
    """Zeros are left out, as clients expect."""
    counts = {"total": state.total, "completed": min(state.done, state.total)}
    return {"status": status, "digest": NO_DIGEST} | {key: count for key, count in counts.items() if count}
