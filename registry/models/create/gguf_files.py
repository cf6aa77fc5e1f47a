"""Uploaded files as layers: what each is, by its own header, and in which order. Source: as for `recipe`."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry.models.create.parts import Part
from registry.models.create.recipe import Files
from registry.models.staging import Staging
from runtime.api.errors import Refused
from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.gguf import MAGIC, MAX_PAIRS, MAX_TENSORS, Header, read_header
from runtime.gguf_reader import MAX_HEADER_BYTES
from runtime.layers import OLLAMA
from runtime.shards import in_order, is_shard, joined
from storage.digest import Digest
from storage.errors import BlobUnknown, NameUnknown

JSON = dict[str, Any]
_ZIP: Final = b"PK\x03\x04"
_NOT_CONVERTED: Final = "safetensors and PyTorch models are not converted here: convert the model to GGUF first"
_SHARD_NAME: Final = re.compile(r"[^/]*-\d{5}-of-\d{5}\.gguf")
_MOST_ENTRIES: Final = MAX_TENSORS + MAX_PAIRS  # of all headers together, which are in memory at once
_FOREIGN: Final = (".safetensors", ".pth", ".zip")


@dataclass(frozen=True, slots=True)
class File:
    """One file of the request, read as far as its header."""

    path: str
    digest: Digest
    size: int
    header: Header

    @property
    def role(self) -> str:
        """The kind of layer that it makes: `model`, `projector` or `adapter`."""
        kind, header = self.header.text("general.type"), self.header
        if is_shard(header):
            return "model"
        if kind in {"mmproj", "projector"} or header.architecture == "clip":
            return "projector"
        if kind == "adapter":
            return "adapter"
        is_eye = not header.block_count and header.number("vision.block_count") is not None
        return "projector" if is_eye else "model"

    def part(self, staging: Staging, kind: str, title: str = "") -> Part:
        return Part(OLLAMA + kind, self.digest, self.size, staging.place, title=title)


@dataclass(frozen=True, slots=True)
class Weights:
    """The layers of a model's weights, in order, and what their headers say together."""

    parts: tuple[Part, ...]
    header: Header


def read_files(staging: Staging, files: Files) -> Generator[JSON, None, list[File]]:
    """Every file, with a line for each. Raises Refused for what is not GGUF, or more than one model can be."""
    _check_kind(staging, files)
    found, read_bytes, entries = list[File](), 0, 0
    for path, digest in files:
        yield {"status": "parsing GGUF"}
        file = _read(staging, path, digest)
        read_bytes += file.header.data_offset
        entries += len(file.header.tensors) + len(file.header.metadata)
        if read_bytes > MAX_HEADER_BYTES or entries > _MOST_ENTRIES:
            raise Refused(400, "the headers of the files are more than one model can have")
        found.append(file)
    return found


def weights_of(staging: Staging, files: Sequence[File]) -> Weights | None:
    """The weights among the files, shards in order; None where there are none. Raises Refused."""
    models = [file for file in files if file.role == "model"]
    if not models:
        return None
    try:
        models = [models[place] for place in in_order([file.header for file in models])]
        header = joined([file.header for file in models])
    except ModelUnusable as error:
        raise Refused(400, str(error)) from None
    if len(models) == 1:
        return Weights((models[0].part(staging, "model"),), header)
    count = len(models)
    parts = (file.part(staging, "model", _title(file.path, number, count)) for number, file in enumerate(models, 1))
    return Weights(tuple(parts), header)


def of_role(staging: Staging, files: Sequence[File], role: str) -> list[Part]:
    return [file.part(staging, role) for file in files if file.role == role]


def _title(path: str, number: int, count: int) -> str:
    """The file name by which llama.cpp finds the parts of one model."""
    name, told = path.rpartition("/")[2], f"-{number:05d}-of-{count:05d}.gguf"
    return name if _SHARD_NAME.fullmatch(name) and name.endswith(told) else f"model{told}"


def _check_kind(staging: Staging, files: Files) -> None:
    """The names tell first, as clients choose files by them; then the first bytes. Raises Refused."""
    paths = [path.lower() for path, _ in files]
    starts = [_start(staging, digest) for _, digest in files]
    if any(path.endswith(_FOREIGN) for path in paths) or _ZIP in starts:
        raise Refused(400, _NOT_CONVERTED)
    if not any(path.endswith(".gguf") for path in paths) and MAGIC not in starts:
        raise Refused(400, "unknown type")


def _start(staging: Staging, digest: Digest) -> bytes:
    try:
        with staging.store.blobs.open(staging.place, digest) as file:
            return file.read(len(MAGIC))
    except (BlobUnknown, NameUnknown):
        raise Refused(400, f'blob "{digest}" not found') from None


def _read(staging: Staging, path: str, digest: Digest) -> File:
    if _start(staging, digest) != MAGIC:
        raise Refused(400, "supplied file was not in GGUF format")
    size = staging.store.blobs.stat(staging.place, digest).size
    try:
        with staging.store.blobs.open(staging.place, digest) as file:
            return File(path, digest, size, read_header(file, size))
    except GGUFInvalid as error:
        raise Refused(400, str(error)) from None
