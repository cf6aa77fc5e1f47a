"""What a model is made of: its manifest, those below it, and every blob that they list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from registry.carry.layout import MAX_ENTRIES
from storage.digest import Digest
from storage.errors import ManifestInvalid
from storage.manifest import MEDIA_TYPES, Descriptor, Manifest

_MAX_DEPTH: Final = 8
_MAX_MANIFESTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Contents:
    """manifests: each once, children before those that list them, the model's own the last. blobs: each once."""

    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]


def contents_of(model: Descriptor, read: Callable[[Descriptor], Manifest]) -> Contents:
    """read: parses the manifest that a descriptor names; what it raises goes through. Raises ManifestInvalid.

    A subject is no part of a model: it may name what is nowhere.
    """
    walk = _Walk(read)
    walk.visit(model, _MAX_DEPTH)
    return Contents(tuple(walk.manifests.values()), tuple(walk.blobs.values()))


class _Walk:
    def __init__(self, read: Callable[[Descriptor], Manifest]) -> None:
        self._read = read
        self.manifests: dict[Digest, Descriptor] = {}
        self.blobs: dict[Digest, Descriptor] = {}

    def visit(self, manifest: Descriptor, depth: int) -> None:
        if manifest.digest in self.manifests:
            return
        if not depth or len(self.manifests) >= _MAX_MANIFESTS:
            raise ManifestInvalid("too many indexes below each other")
        parsed = self._read(manifest)
        for child in parsed.children:
            if child.media_type in MEDIA_TYPES:
                self.visit(child, depth - 1)
            else:  # in the indexes of build caches
                self._add(child)
        for blob in parsed.blobs:
            self._add(blob)
        self.manifests[manifest.digest] = manifest

    def _add(self, blob: Descriptor) -> None:
        known = self.blobs.get(blob.digest)
        if known is None and len(self.blobs) >= MAX_ENTRIES:
            raise ManifestInvalid(f"more than {MAX_ENTRIES} blobs are too many for one model")
        if known is None or known.may_be_absent:  # needed once is needed
            self.blobs[blob.digest] = blob
