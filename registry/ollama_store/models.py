"""A model out of an Ollama folder into the store: each blob, then the manifest, byte for byte as it lies there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from registry.mirror.mirrors import Mirrors
from registry.ollama_store.blobs import Blobs, How
from registry.ollama_store.errors import ModelRefused
from registry.ollama_store.folder import ManifestFile
from registry.remotes.statuses import in_order
from storage.digest import Digest
from storage.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
)
from storage.manifest import Descriptor, Kind, Manifest
from storage.reference import ModelName
from storage.repositories import StoredManifest
from storage.store import Store


@dataclass(slots=True)
class Tally:
    """Blobs and their bytes, by how they came."""

    blobs: Counter[How] = field(default_factory=Counter)
    sizes: Counter[How] = field(default_factory=Counter)

    def add(self, how: How, size: int) -> None:
        self.blobs[how] += 1
        self.sizes[how] += size

    def __iadd__(self, other: Tally) -> Tally:
        self.blobs.update(other.blobs)
        self.sizes.update(other.sizes)
        return self


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that is here now. stored: what was put; None where it was here as it is."""

    name: ModelName
    tally: Tally
    stored: StoredManifest | None


def name_of(file: ManifestFile) -> ModelName:
    """The name that the file's place says, its own host and namespace included. Raises NameInvalid.

    Ollama's names have characters that ours have not. What is left of one after trimming or cutting would be another.
    """
    *repository, tag = file.parts
    spelt = f"{'/'.join(repository)}:{tag}"
    name = ModelName.parse(spelt)
    if name.full.lower() != spelt.lower():
        raise NameInvalid("invalid model name")
    return name


class Models:
    """Brings models into the store, for `principal`. replaces: a tag that names another manifest here is moved."""

    def __init__(self, store: Store, blobs: Blobs, *, principal: str, replaces: bool) -> None:
        self._store, self._blobs, self._principal, self._replaces = store, blobs, principal, replaces
        self._mirrors = Mirrors(store.database)

    def bring(self, name: ModelName, raw: bytes) -> Imported:
        """All of the model or nothing that is visible. Raises ModelRefused, StorageError."""
        self._refuse_mirrored(name)
        name, before = self._as_stored(name)
        blobs, tally = _blobs_of(raw), Tally()
        is_same = before == Digest.of(raw)
        if is_same and self._has_all(name, blobs):
            for blob in blobs:
                tally.add(How.HERE, blob.size)
            return Imported(name, tally, None)
        if before is not None and not is_same and not self._replaces:
            raise ModelRefused("is here with other content; with --replace it is exchanged")
        for blob in blobs:
            self._blobs.check(blob)
        for blob in blobs:
            tally.add(self._blobs.bring(name.repository, blob), blob.size)
        self._refuse_mirrored(name)  # there may be a mirror by now
        return Imported(name, tally, self._put(name, raw))

    def _refuse_mirrored(self, name: ModelName) -> None:
        """A mirror gives up what it holds, in the belief that it can be fetched again. Raises ModelRefused."""
        mirror = self._mirrors.find(name.repository)
        if mirror is not None:
            raise ModelRefused(
                f"{mirror.prefix} mirrors {mirror.upstream}; pull it from there, or import it after "
                f"`tonnage mirror remove {mirror.prefix}`"
            )

    def _as_stored(self, name: ModelName) -> tuple[ModelName, Digest | None]:
        """The name with its tag as it is spelt here, and what that names; as it came, and None, where it is new."""
        repositories = self._store.repositories
        try:
            tag = repositories.resolve_tag(name.repository, name.tag)
            return replace(name, tag=tag), repositories.get_manifest(name.repository, tag).digest
        except (NameUnknown, ManifestUnknown):
            return name, None

    def _has_all(self, name: ModelName, blobs: Iterable[Descriptor]) -> bool:
        """A scrub may have put one away, which is brought anew then."""
        try:
            return all(self._store.blobs.stat(name.repository, blob.digest).size == blob.size for blob in blobs)
        except (BlobUnknown, NameUnknown):
            return False

    def _put(self, name: ModelName, raw: bytes) -> StoredManifest:
        """Let the tag name the manifest; one that it named before, and nothing else does, goes."""
        repositories = self._store.repositories
        try:
            stored = repositories.put_manifest(name.repository, name.tag, raw, principal=self._principal)
        except ManifestBlobUnknown as error:
            raise ModelRefused("took longer than its blobs are kept for it; import it again") from error
        except ManifestInvalid as error:
            raise ModelRefused(str(error)) from error
        for _, before in stored.replaced:
            if before != stored.digest:
                repositories.remove_untagged(name.repository, before)
        return stored


def _blobs_of(raw: bytes) -> list[Descriptor]:
    """What the manifest lists, each blob once. Raises ModelRefused for what is no model's manifest."""
    try:
        manifest = Manifest.parse(raw)
        blobs = in_order(manifest)
    except ManifestInvalid as error:
        raise ModelRefused(f"its manifest cannot be used: {error}") from error
    if manifest.kind is not Kind.MANIFEST or not blobs:
        raise ModelRefused("its manifest lists no layers; pull it again")
    return blobs
