"""A local GGUF file as the blobs and the manifest of a model, to the byte as Ollama writes them.

Source: the Ollama registry protocol, "Manifest JSON", "Layer media types", "Config blob".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from registry.remotes.endpoint import DOCKER_MANIFEST
from registry.remotes.errors import LocalFileUnfit
from runtime.errors import GGUFInvalid
from runtime.gguf import Header, parameter_text, read_header
from storage.digest import Digest

_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_LAYER: Final = "application/vnd.ollama.image."
_MAX_TEXT: Final = 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
_SEND_BYTES: Final = 64 * 1024  # one piece must leave within the connect time-out, on a slow line too


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """Bytes to push: a file's, or a few in memory."""

    media_type: str
    digest: Digest
    size: int
    data: bytes | None = None
    path: Path | None = None
    mount_from: str = ""

    def part(self, start: int, length: int) -> Iterator[bytes]:
        """Bytes `start` to `start + length`, in pieces. Raises LocalFileUnfit when the file has become shorter."""
        if self.data is not None:
            yield self.data[start : start + length]
            return
        assert self.path is not None
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                while length:
                    piece = file.read(min(length, _SEND_BYTES))
                    if not piece:
                        raise LocalFileUnfit(f"{self.path} became shorter while it was pushed")
                    length -= len(piece)
                    yield piece
        except OSError as error:  # must not look like a broken connection
            raise LocalFileUnfit(f"cannot read {self.path}: {error.strerror}") from error

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, slots=True)
class Package:
    """Everything to push for one model: layers in manifest order, then the config, then the manifest."""

    layers: tuple[LocalBlob, ...]
    config: LocalBlob
    manifest: bytes
    media_type: str = DOCKER_MANIFEST


def go_json(value: object) -> bytes:
    """Compact JSON as Go's encoder writes it: members in order, `<`, `>`, `&` and the line separators escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def config_json(header: Header) -> bytes:
    """The config blob of a model with this GGUF header, with the newline that Ollama's create appends."""
    config = {
        "model_format": "gguf",
        "model_family": header.architecture,
        "model_families": [header.architecture],
        "model_type": parameter_text(header.parameter_count),
        "file_type": _file_type(header),
        "architecture": "amd64",
        "os": "linux",
    }
    return go_json(config) + b"\n"


def build_package(
    gguf: Path,
    *,
    template: Path | None = None,
    system: str = "",
    licenses: tuple[Path, ...] = (),
    hashed: Callable[[int], None] = lambda position: None,
) -> Package:
    """Read, check and hash what is to be pushed; `hashed` hears how far the weights are. Raises LocalFileUnfit."""
    layers = [_weights(gguf, hashed)]
    if template is not None:
        layers.append(_text_layer("template", _read_text(template)))
    if system:
        layers.append(_text_layer("system", system.encode()))
    layers += [_text_layer("license", _read_text(path)) for path in licenses]
    config = _in_memory(_CONFIG, config_json(_header(gguf)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return Package(tuple(layers), config, go_json(manifest))


def _file_type(header: Header) -> str:
    """Ollama's create reads a stored 0 as absent: F32 is `unknown` there, and so it must be in these bytes."""
    return "unknown" if header.file_type == "F32" else header.file_type


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
    except GGUFInvalid as error:
        raise LocalFileUnfit(f"{path}: {error}") from error
    except OSError as error:
        raise LocalFileUnfit(f"cannot read {path}: {error.strerror}") from error
    if header.architecture == "clip" or header.text("general.type") in {"adapter", "projector", "mmproj"}:
        raise LocalFileUnfit(f"{path} is not a model by itself but an addition to one")
    return header


def _weights(path: Path, hashed: Callable[[int], None]) -> LocalBlob:
    _header(path)  # before minutes of hashing
    return local_blob(path, _LAYER + "model", hashed)


def local_blob(path: Path, media_type: str, hashed: Callable[[int], None]) -> LocalBlob:
    """A file as it is; `hashed` hears how far its hashing is. Raises LocalFileUnfit."""
    hasher, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_READ_BYTES):
                hasher.update(piece)
                size += len(piece)
                hashed(size)
    except OSError as error:
        raise LocalFileUnfit(f"cannot read {path}: {error.strerror}") from error
    return LocalBlob(media_type, Digest("sha256", hasher.hexdigest()), size, path=path)


def _text_layer(kind: str, data: bytes) -> LocalBlob:
    return _in_memory(_LAYER + kind, data)


def _in_memory(media_type: str, data: bytes) -> LocalBlob:
    return LocalBlob(media_type, Digest.of(data), len(data), data=data)


def _read_text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TEXT + 1)
        data.decode()
    except OSError as error:
        raise LocalFileUnfit(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise LocalFileUnfit(f"{path} is not UTF-8 text") from None
    if len(data) > _MAX_TEXT:
        raise LocalFileUnfit(f"{path} has more than {_MAX_TEXT} bytes")
    return data
