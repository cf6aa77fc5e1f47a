"""What an export will write, known before its first byte: so it can be written again from any place on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from registry.carry.contents import contents_of
from registry.carry.errors import ExportRefused
from registry.carry.layout import INDEX_NAME, MAX_ENTRIES, MAX_INDEX, ModelAt, write_index
from storage.digest import Digest
from storage.errors import BlobUnknown, ManifestUnknown, NameUnknown
from storage.manifest import Descriptor, Manifest
from storage.reference import RepositoryName, Tag
from storage.repositories import StoredManifest
from storage.store import Store

_FIXED: Final = 3  # entries that every archive has


@dataclass(frozen=True, slots=True)
class Item:
    """A blob or manifest of the archive, and a repository that holds it."""

    digest: Digest
    size: int
    repository: RepositoryName


@dataclass(slots=True)
class Plan:
    """Manifests and blobs, each by its digest once."""

    index: bytes = b""
    manifests: dict[Digest, Item] = field(default_factory=dict)
    blobs: dict[Digest, Item] = field(default_factory=dict)
    left_out: int = 0

    @classmethod
    def of(cls, store: Store, models: Iterable[ModelAt]) -> Plan:
        """Everything that the models consist of. Raises ExportRefused for one that is not all here."""
        plan, listed = cls(), list[tuple[ModelAt, Descriptor]]()
        for at in models:
            listed.append((at, _Gathering(store, plan, at).run()))
            if len(plan.manifests) + len(plan.blobs) + _FIXED > MAX_ENTRIES:
                raise ExportRefused(f"more than {MAX_ENTRIES} blobs are too many for one archive; name fewer models")
        for digest in plan.manifests:  # what one model lists as bytes, another may list as a manifest
            plan.blobs.pop(digest, None)
        plan.index = write_index(listed)
        if len(plan.index) > MAX_INDEX:
            raise ExportRefused(f"{INDEX_NAME} would have more than {MAX_INDEX} bytes; name fewer models")
        return plan

    def leave_out(self, digests: Iterable[Digest]) -> None:
        """Blobs that the other side has already. Manifests always come."""
        for digest in digests:
            if self.blobs.pop(digest, None) is not None:
                self.left_out += 1

    @property
    def items(self) -> list[tuple[Item, bool]]:
        """In the archive's order, each with whether it is a manifest."""
        groups = ((self.manifests, True), (self.blobs, False))
        return [(group[digest], is_one) for group, is_one in groups for digest in sorted(group, key=str)]


class _Gathering:
    """One model on its way into a plan."""

    def __init__(self, store: Store, plan: Plan, at: ModelAt) -> None:
        self._store, self._plan, self._at = store, plan, at

    def run(self) -> Descriptor:
        """The model's own descriptor."""
        repository, stored = self._at.repository, self._stored(self._at.tag)
        top = Descriptor(stored.media_type, stored.digest, len(stored.raw))
        contents = contents_of(top, self._manifest)
        for manifest in contents.manifests:
            self._plan.manifests.setdefault(manifest.digest, Item(manifest.digest, manifest.size, repository))
        for blob in contents.blobs:
            self._add_blob(blob)
        return top

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        stored = self._stored(descriptor.digest)
        return Manifest.parse(stored.raw, stored.media_type)

    def _add_blob(self, blob: Descriptor) -> None:
        try:
            size = self._store.blobs.stat(self._at.repository, blob.digest).size
        except (BlobUnknown, NameUnknown):
            if blob.may_be_absent:
                return
            raise self._lacks(f"blob {blob.digest}") from None
        self._plan.blobs.setdefault(blob.digest, Item(blob.digest, size, self._at.repository))

    def _stored(self, reference: Tag | Digest) -> StoredManifest:
        try:
            return self._store.repositories.get_manifest(self._at.repository, reference)
        except (ManifestUnknown, NameUnknown):
            raise self._lacks(f"manifest {reference}") from None

    def _lacks(self, what: str) -> ExportRefused:
        return ExportRefused(f"{self._at} cannot be exported: {what} is not here, or damaged; pull the model again")
