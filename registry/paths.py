"""Which noun of the spec a path under /v2/ names.

A repository name may itself contain `blobs`, `manifests`, `uploads` …, so a path is read from its right end; routers
that match from the left send such names astray.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What has a path of its own below a repository: the nouns of the distribution spec, and sums of chunks."""

    BLOB = "blob"
    UPLOAD_START = "upload-start"
    UPLOAD = "upload"
    MANIFEST = "manifest"
    TAGS = "tags"
    REFERRERS = "referrers"
    CHUNK_SUMS = "chunksums"


@dataclass(frozen=True, slots=True)
class RepositoryPath:
    """`name` and `reference` as text, not yet parsed; `reference` is empty where the kind has none."""

    kind: Kind
    name: str
    reference: str = ""


_BY_SECOND_LAST = {
    "blobs": Kind.BLOB,
    "manifests": Kind.MANIFEST,
    "referrers": Kind.REFERRERS,
    "chunksums": Kind.CHUNK_SUMS,
}


def split_path(path: str) -> RepositoryPath | None:
    """The parts of `path`, which is what follows `/v2/`; None when it is no path of the spec."""
    parts = path.split("/")
    if parts[-3:] == ["blobs", "uploads", ""] or parts[-2:] == ["blobs", "uploads"]:
        return _named(Kind.UPLOAD_START, parts[: -3 if parts[-1] == "" else -2], "")
    if len(parts) < 3 or not parts[-1]:
        return None
    if parts[-3:-1] == ["blobs", "uploads"]:
        return _named(Kind.UPLOAD, parts[:-3], parts[-1])
    if parts[-2:] == ["tags", "list"]:
        return _named(Kind.TAGS, parts[:-2], "")
    kind = _BY_SECOND_LAST.get(parts[-2])
    return _named(kind, parts[:-2], parts[-1]) if kind else None


def _named(kind: Kind, name: list[str], reference: str) -> RepositoryPath | None:
    return RepositoryPath(kind, "/".join(name), reference) if name else None
