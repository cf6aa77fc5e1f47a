"""Manifests: parsed strictly from a copy, never written anew. Spec: "Image Manifest", "Image Index"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestInvalid, ManifestTooLarge

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
ORAS_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn, still found in old registries

_MEDIA_TYPE: Final = re.compile(r"[!-~]{1,255}")  # lenient: whatever a client calls its layers, in one printable word
_NON_DISTRIBUTABLE: Final = frozenset(
    [f"application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")]
    + ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"]
)
_EMPTY_JSON: Final = frozenset(str(Digest.of(b"{}", algorithm)) for algorithm in ("sha256", "sha512"))
_CONTAINERS: Final = (dict, list)  # a union would be made anew for each of a million values


class Kind(Enum):
    """What a manifest's media type says it is."""

    MANIFEST = "manifest"
    INDEX = "index"
    ARTIFACT = "artifact"


_KINDS: Final = {
    OCI_MANIFEST: Kind.MANIFEST,
    DOCKER_MANIFEST: Kind.MANIFEST,
    OCI_INDEX: Kind.INDEX,
    DOCKER_LIST: Kind.INDEX,
    ORAS_ARTIFACT: Kind.ARTIFACT,
}
MEDIA_TYPES: Final = frozenset(_KINDS)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of something else. Spec: "OCI Content Descriptors"."""

    media_type: str
    digest: Digest
    size: int
    has_data: bool = False  # the bytes are also inline

    @property
    def may_be_absent(self) -> bool:
        """Layers nobody may redistribute are never pushed; `{}` is often only inline."""
        is_inline_empty = self.has_data and str(self.digest) in _EMPTY_JSON
        return self.media_type in _NON_DISTRIBUTABLE or is_inline_empty

    def to_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a manifest that the store acts on; `body` is all of it, read-only."""

    media_type: str
    kind: Kind
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None  # as its referrers list shows it
    annotations: dict[str, str]
    body: dict[str, Any]

    @classmethod
    def parse(cls, raw: bytes, content_type: str | None = None) -> Manifest:
        """Raises ManifestInvalid, ManifestTooLarge. `content_type` may carry parameters; without one the body tells."""
        body = _load(raw)
        media_type = _media_type(body, content_type)
        kind = _KINDS.get(media_type)
        if kind is None:
            raise ManifestInvalid("unsupported manifest media type", mediaType=media_type[:255])
        version = body.get("schemaVersion", 2)
        if type(version) is not int or version != 2:  # Go's clients cannot read 2.0 either
            raise ManifestInvalid("unsupported schemaVersion")
        if ("manifests" in body and kind is not Kind.INDEX) or ("layers" in body and kind is not Kind.MANIFEST):
            raise ManifestInvalid("the body contradicts its media type", mediaType=media_type)
        config = _config(body, media_type) if kind is Kind.MANIFEST else None
        artifact_type = _optional_text(body, "artifactType")
        return cls(
            media_type=media_type,
            kind=kind,
            config=config,
            layers=tuple(_descriptors(body, "blobs" if kind is Kind.ARTIFACT else "layers")),
            children=tuple(_descriptors(body, "manifests")),
            subject=_descriptor(body["subject"], "subject") if body.get("subject") is not None else None,
            artifact_type=artifact_type or (config.media_type if config else None),
            annotations=_annotations(body),
            body=body,
        )

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each descriptor once; one digest may still stand in several that differ."""
        return tuple(dict.fromkeys((*((self.config,) if self.config else ()), *self.layers)))

    @property
    def required_blobs(self) -> tuple[Descriptor, ...]:
        """Blobs that must be in the repository before the manifest. A subject never must."""
        return tuple(blob for blob in self.blobs if not blob.may_be_absent)


def _load(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_MANIFEST:
        raise ManifestTooLarge("manifest too large", size=len(raw), limit=MAX_MANIFEST)
    try:
        body = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:  # the decoder's own bound, far above ours
        raise ManifestInvalid("manifest nested too deep", limit=MAX_DEPTH) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too
        raise ManifestInvalid("manifest is not JSON", reason=str(error)[:200]) from None
    if not isinstance(body, dict):
        raise ManifestInvalid("manifest is not a JSON object")
    _check_depth(body)
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Parsers disagree about which of two equal keys wins, so a manifest with both would mean two things."""
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ManifestInvalid("manifest has a key twice")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_depth(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _containers(value)]
        if not level:
            return
    raise ManifestInvalid("manifest nested too deep", limit=MAX_DEPTH)


def _containers(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    children = value.values() if isinstance(value, dict) else value
    return (child for child in children if isinstance(child, _CONTAINERS))


def _media_type(body: dict[str, Any], content_type: str | None) -> str:
    header = (content_type or "").partition(";")[0].strip()
    own = _optional_text(body, "mediaType")
    if header and own and header != own:
        raise ManifestInvalid("mediaType and Content-Type disagree", mediaType=own, contentType=header[:255])
    if header or own:
        return header or own or ""
    if "manifests" in body:
        return OCI_INDEX
    if "config" in body or "layers" in body:
        return OCI_MANIFEST
    raise ManifestInvalid("manifest does not tell its media type")


def _config(body: dict[str, Any], media_type: str) -> Descriptor | None:
    config = body.get("config")
    if media_type == DOCKER_MANIFEST and isinstance(config, dict) and config.get("digest") == "":
        return None  # models of the earliest Ollama versions
    return _descriptor(config, "config")


def _descriptors(body: dict[str, Any], key: str) -> Iterator[Descriptor]:
    listed = body.get(key)
    if listed is None:  # Go clients write null for an empty list
        return
    if not isinstance(listed, list):
        raise ManifestInvalid(f"{key} is not a list")
    for descriptor in listed:
        yield _descriptor(descriptor, key)


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where} needs a descriptor")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise ManifestInvalid(f"a descriptor of {where} has no valid mediaType")
    if type(size) is not int or not 0 <= size < 2**63:
        raise ManifestInvalid(f"a descriptor of {where} has no valid size")
    if not isinstance(digest, str):
        raise ManifestInvalid(f"a descriptor of {where} has no digest")
    try:
        parsed = Digest.parse(digest)
    except DigestInvalid as error:
        raise ManifestInvalid(f"a descriptor of {where} has an invalid digest", digest=digest[:160]) from error
    return Descriptor(media_type, parsed, size, has_data="data" in value)


def _optional_text(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        raise ManifestInvalid(f"{key} is not a media type")
    return value


def _annotations(body: dict[str, Any]) -> dict[str, str]:
    annotations = body.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ManifestInvalid("annotations are not a map of strings")
    return annotations
