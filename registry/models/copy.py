"""POST /api/copy: another name for a model. Source: the Ollama API, "POST /api/copy"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flask import Blueprint, Response

from auth.access import Right, current_gate
from registry.heavy import room_to_parse
from registry.mirrored import check_not_mirrored
from registry.models.names import as_stored, parse_named, tag_moved
from registry.services import config, store
from runtime.api.errors import Refused
from runtime.api.replies import refusal
from runtime.api.requests import read_body
from runtime.errors import RuntimeFailure
from storage.digest import Digest
from storage.errors import ManifestUnknown, NameUnknown, StorageError
from storage.manifest import Manifest
from storage.mounts import mount_all
from storage.reference import ModelName, RepositoryName, Tag
from storage.repositories import StoredManifest

_MOST_BODY: Final = 2**20
_MOST_LEVELS: Final = 8  # of indexes within indexes
_MOST_MANIFESTS: Final = 1000

bp = Blueprint("models_copy", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.post("/api/copy")
def copy() -> Response:
    """Let `destination` name what `source` names, whatever it named before; no byte of a blob is copied."""
    body = read_body(_MOST_BODY)
    asked = body.text("source")
    source = parse_named(asked, 'source "{}" is invalid')
    target = parse_named(body.text("destination"), 'destination "{}" is invalid')
    for wanted in ((target.repository, "push"), (source.repository, "pull")):  # a refusal names the one it is about
        current_gate().check(Right.MANAGE, wanted)
    check_not_mirrored(target.repository)
    source, target = as_stored(source), as_stored(target)
    try:
        stored = store().repositories.get_manifest(source.repository, source.tag)
    except (NameUnknown, ManifestUnknown):
        raise Refused(404, f'model "{asked}" not found') from None
    if (source.repository, source.tag) != (target.repository, target.tag):
        _copy(stored, source, target)
    return Response(status=200)


def _copy(stored: StoredManifest, source: ModelName, target: ModelName) -> None:
    copies = _Copies(source.repository, target.repository, current_gate().identify().principal)
    tag_moved(target, copies.add(stored, tags=[target.tag]))


class _Copies:
    """Manifests of one repository on their way into another, what they list before themselves."""

    def __init__(self, source: RepositoryName, into: RepositoryName, principal: str) -> None:
        self._source, self._into, self._principal = source, into, principal
        self._seen: set[Digest] = set()

    def add(self, stored: StoredManifest, *, tags: Sequence[Tag] = (), level: int = 0) -> StoredManifest:
        """The manifest and all below it, each once; as it stands there. Raises ManifestBlobUnknown, ManifestInvalid."""
        self._seen.add(stored.digest)
        with room_to_parse(stored.raw):  # not while children are copied: they want it too
            manifest = Manifest.parse(stored.raw, stored.media_type)
        for child in manifest.children if level < _MOST_LEVELS else ():
            if child.digest not in self._seen and len(self._seen) < _MOST_MANIFESTS:
                self._add_child(child.digest, level + 1)
        listed = [each.digest for each in (*manifest.blobs, *manifest.children)]
        principal = self._principal
        mount_all(store().database, listed, source=self._source, into=self._into, principal=principal)
        put, sparse = store().repositories.put_manifest, config().allow_sparse
        kind = stored.media_type
        with room_to_parse(stored.raw):
            return put(self._into, stored.digest, stored.raw, kind, tags=tags, allow_sparse=sparse, principal=principal)

    def _add_child(self, digest: Digest, level: int) -> None:
        try:
            stored = store().repositories.get_manifest(self._source, digest)
        except ManifestUnknown:  # a blob, or not here either
            return
        self.add(stored, level=level)
