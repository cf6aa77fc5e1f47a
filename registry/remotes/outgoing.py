"""What a model of the store is made of, in the order in which another registry takes it: parts before the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from registry.heavy import room_to_parse
from registry.remotes.statuses import TransferFailed
from storage.digest import Digest
from storage.errors import ManifestUnknown
from storage.manifest import DOCKER_LIST, OCI_INDEX, Descriptor, Manifest
from storage.reference import RepositoryName
from storage.repositories import StoredManifest
from storage.store import Store

_MAX_DEPTH: Final = 2  # an index, and those that it lists
_MAX_MANIFESTS: Final = 1000
_INDEXES: Final = (OCI_INDEX, DOCKER_LIST)


class Outgoing:
    """The manifests below `top`, each once and before those that list it.

    Only their digests are kept: a manifest may have megabytes.
    """

    def __init__(self, store: Store, repository: RepositoryName, top: StoredManifest) -> None:
        """Raises TransferFailed, before anything is sent: not all of it is here, or it is too much."""
        self._store, self._repository = store, repository
        self._below: dict[Digest, None] = {}
        self._collect(top, depth=0)

    def children(self) -> Iterator[StoredManifest]:
        """Those that `top` is made of, without itself."""
        return map(self._child, self._below)

    def _collect(self, manifest: StoredManifest, depth: int) -> None:
        if manifest.media_type not in _INDEXES:
            return
        if depth >= _MAX_DEPTH:
            raise TransferFailed("an index of indexes of indexes is no model")
        for listed in _listed(manifest):
            if listed.digest in self._below:
                continue
            self._collect(self._child(listed.digest), depth + 1)
            self._below[listed.digest] = None
            if len(self._below) > _MAX_MANIFESTS:
                raise TransferFailed(f"an index of more than {_MAX_MANIFESTS} manifests is no model")

    def _child(self, digest: Digest) -> StoredManifest:
        try:
            return self._store.repositories.get_manifest(self._repository, digest)
        except ManifestUnknown:
            raise TransferFailed(f"the index lists {digest}, which is not here; push it to this server first") from None


def parsed(manifest: StoredManifest) -> Manifest:
    with room_to_parse(manifest.raw):
        return Manifest.parse(manifest.raw, manifest.media_type)


def _listed(manifest: StoredManifest) -> tuple[Descriptor, ...]:
    return parsed(manifest).children
