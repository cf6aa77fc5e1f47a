"""What stands in an archive of models: an OCI image layout, and a signature of its index.

Spec: "OCI Image Layout Specification".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from registry.carry.errors import ArchiveInvalid
from registry.remotes.text import one_line
from storage.digest import Digest
from storage.errors import DigestInvalid, NameInvalid, StorageError, TagInvalid
from storage.manifest import MAX_MANIFEST, OCI_INDEX, Descriptor, Kind, Manifest
from storage.reference import RepositoryName, Tag

LAYOUT_NAME: Final = "oci-layout"
INDEX_NAME: Final = "index.json"
SIGNATURE_NAME: Final = "tonnage-signature.json"
FOLDERS: Final = frozenset({"", ".", "blobs", "blobs/sha256", "blobs/sha512"})
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME: Final = "org.opencontainers.image.ref.name"

MAX_ENTRIES: Final = 50_000
MAX_LAYOUT: Final = 4096  # bytes, as of the signature
MAX_INDEX: Final = MAX_MANIFEST
_BLOBS: Final = "blobs"


@dataclass(frozen=True, slots=True, order=True)
class ModelAt:
    """Where a model stands in a store."""

    repository: RepositoryName
    tag: Tag

    @classmethod
    def parse(cls, text: str) -> ModelAt:
        """`repository:tag`, strictly. Raises NameInvalid, TagInvalid."""
        repository, colon, tag = text.rpartition(":")
        if not colon:
            raise NameInvalid("neither repository nor tag can be missing", name=text[:255])
        return cls(RepositoryName(repository), Tag(tag))

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the index: a manifest, and what it is called. ref_name: as it came, None where nothing was said."""

    manifest: Descriptor
    ref_name: str | None

    @property
    def label(self) -> str:
        """For people."""
        return str(self.manifest.digest) if self.ref_name is None else one_line(ascii(self.ref_name)[1:-1])

    def place(self) -> ModelAt | None:
        """Where the model goes; None if its name does not say so, as in layouts that only name tags."""
        try:
            return ModelAt.parse(self.ref_name or "")
        except (NameInvalid, TagInvalid):
            return None


def blob_name(digest: Digest) -> str:
    return f"{_BLOBS}/{digest.algorithm}/{digest.encoded}"


def parse_blob_name(text: str) -> Digest | None:
    """The digest whose `blob_name` this is."""
    folder, _, rest = text.partition("/")
    algorithm, _, encoded = rest.partition("/")
    try:
        return Digest(algorithm, encoded) if folder == _BLOBS else None
    except DigestInvalid:
        return None


def write_index(models: Iterable[tuple[ModelAt, Descriptor]]) -> bytes:
    """The same bytes for the same models, in whatever order they come."""
    listed = [each.to_json() | {"annotations": {REF_NAME: str(at)}} for at, each in sorted(models, key=lambda m: m[0])]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def read_index(raw: bytes) -> list[Listed]:
    """The models of an index. Raises ArchiveInvalid."""
    try:
        index = Manifest.parse(raw)
    except StorageError as error:
        raise ArchiveInvalid(f"{INDEX_NAME} cannot be read: {error}") from error
    if index.kind is not Kind.INDEX:
        raise ArchiveInvalid(f"{INDEX_NAME} is no index of manifests")
    names = _ref_names(index.body.get("manifests") or [])
    listed = [Listed(child, name) for child, name in zip(index.children, names, strict=True)]
    named = [each.ref_name for each in listed if each.ref_name is not None]
    if len(set(named)) < len(named):
        raise ArchiveInvalid(f"{INDEX_NAME} gives one name to two models")
    return listed


def _ref_names(entries: list[dict[str, Any]]) -> Iterator[str | None]:
    for entry in entries:
        annotations = entry.get("annotations")
        name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
        if name is not None and not isinstance(name, str):
            raise ArchiveInvalid(f"{INDEX_NAME} names a model by what is no text")
        yield name


def check_layout(raw: bytes) -> None:
    """Raises ArchiveInvalid for a layout of another version."""
    try:
        body = json.loads(raw)
        version = body.get("imageLayoutVersion") if isinstance(body, dict) else None
    except (ValueError, RecursionError):
        version = None
    if not isinstance(version, str) or not version.startswith("1."):
        raise ArchiveInvalid(f"{LAYOUT_NAME} does not say that this is an OCI image layout of version 1")
