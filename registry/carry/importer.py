"""Models of an archive into the store: each model's blobs first, its manifest and tag last, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from registry.carry.contents import Contents, contents_of
from registry.carry.errors import BlobDamaged, CarryError, ModelRefused
from registry.carry.intake import PRINCIPAL, Intake, hold
from registry.carry.layout import Listed, ModelAt
from registry.carry.reader import Archive
from registry.mirror.mirrors import Mirrors
from registry.remotes.progress import Bar, Progress
from storage.digest import Digest
from storage.errors import StorageError, StorageFull, StorageUnavailable
from storage.manifest import MAX_MANIFEST, Descriptor, Manifest
from storage.repositories import StoredManifest
from storage.store import Store

_MAX_NAMED: Final = 3  # missing blobs in one refusal


@dataclass(slots=True)
class Brought:
    """How many models an import has brought in, and how many it has refused."""

    models: int = 0
    refused: int = 0


class Importer:
    """Brings in what one archive holds, from whomever it may be: that is decided before."""

    def __init__(
        self, store: Store, archive: Archive, progress: Progress, stored: Callable[[ModelAt, StoredManifest], None]
    ) -> None:
        """stored: told of each model once it is visible."""
        self._store, self._archive, self._progress, self._stored = store, archive, progress, stored
        self._mirrors = Mirrors(store.database)
        self._damaged: set[Digest] = set()

    def run(self, into: ModelAt | None = None) -> Brought:
        """Every model, each by itself: one that is refused keeps no other out.

        into: where the only model goes, whatever the archive calls it. Raises CarryError and StorageError for what
        would stop the others too; what has come by then is kept, and used by the next import.
        """
        if into is not None and len(self._archive.models) != 1:
            raise CarryError(f"one model can be called {into}; the archive holds {len(self._archive.models)}")
        brought = Brought()
        total = sum(each.size for each in self._archive.blobs.values())
        self._sum = _Sum(self._progress.bar("importing", total))
        try:
            for listed in self._archive.models:
                if self._bring_if_fit(listed, into):
                    brought.models += 1
                else:
                    brought.refused += 1
        finally:
            self._sum.bar.close()
        return brought

    def _bring_if_fit(self, listed: Listed, into: ModelAt | None) -> bool:
        try:
            self._bring(listed, into or _place(listed))
        except (StorageFull, StorageUnavailable):
            raise
        except (ModelRefused, BlobDamaged, StorageError) as error:
            self._progress.say(f"refused {listed.label}: {error}")
            return False
        return True

    def _bring(self, listed: Listed, at: ModelAt) -> None:
        self._refuse_mirrored(at)
        contents = contents_of(listed.manifest, self._parsed)
        blobs = self._wanted(contents)
        for _ in range(2):  # hours may lie between first and last: the lease that the first got may have run out
            for blob in blobs:
                self._blob(at, blob)
        self._refuse_mirrored(at)  # there may be a mirror by now
        for child in contents.manifests[:-1]:
            self._put(at, child)
        stored = self._put(at, listed.manifest, is_top=True)
        self._stored(at, stored)
        for _, before in stored.replaced:
            if before != stored.digest:
                self._store.repositories.remove_untagged(at.repository, before)

    def _refuse_mirrored(self, at: ModelAt) -> None:
        """A mirror gives up what it holds, in the belief that it can be fetched again. Raises ModelRefused."""
        mirror = self._mirrors.find(at.repository)
        if mirror is not None:
            raise ModelRefused(f"{mirror.prefix} mirrors {mirror.upstream}; import it under another name with --as")

    def _parsed(self, descriptor: Descriptor) -> Manifest:
        raw = self._raw(descriptor)
        if len(raw) != descriptor.size:
            raise ModelRefused(f"manifest {descriptor.digest} has {len(raw)} bytes, not {descriptor.size}")
        return Manifest.parse(raw, descriptor.media_type)

    def _raw(self, descriptor: Descriptor) -> bytes:
        found = self._archive.blobs.get(descriptor.digest)
        if found is None:
            raise ModelRefused(f"manifest {descriptor.digest} is not in the archive")
        if found.size > MAX_MANIFEST:
            raise ModelRefused(f"manifest {descriptor.digest} has more than {MAX_MANIFEST} bytes")
        return self._archive.read(descriptor.digest, MAX_MANIFEST)

    def _wanted(self, contents: Contents) -> list[Descriptor]:
        """The blobs to bring, in the archive's order. Raises ModelRefused, before any of them is, if one is missing."""
        held = {each.digest for each in contents.blobs if self._store.blobs.holders(each.digest)}
        missing = [
            str(each.digest)
            for each in contents.blobs
            if each.digest not in held and each.digest not in self._archive.blobs and not each.may_be_absent
        ]
        if missing:
            more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            raise ModelRefused(
                f"{', '.join(missing[:_MAX_NAMED])}{more} neither in the archive nor in this store; export again, "
                "without --since or since an inventory of this store"
            )
        here = self._archive.blobs
        wanted = [each for each in contents.blobs if each.digest in held or each.digest in here]
        return sorted(wanted, key=lambda each: here[each.digest].offset if each.digest in here else 0)

    def _blob(self, at: ModelAt, blob: Descriptor) -> None:
        """One that a repository holds is linked, whatever the archive has; its bytes are not read again."""
        if not hold(self._store, at.repository, blob.digest):
            self._read_blob(at, blob)
        self._sum.move(blob.digest, blob.size)

    def _read_blob(self, at: ModelAt, blob: Descriptor) -> None:
        found = self._archive.blobs.get(blob.digest)
        if found is None:
            raise ModelRefused(f"{blob.digest} was in this store a moment ago, and is gone; import again")
        if found.size != blob.size:
            raise ModelRefused(f"its manifest gives {blob.digest} {blob.size} bytes, the archive has {found.size}")
        if blob.digest in self._damaged:
            raise BlobDamaged(f"the archive holds other bytes than {blob.digest}")
        moved = partial(self._sum.move, blob.digest)
        try:
            Intake(self._store, self._archive, at.repository, blob.digest, moved=moved, say=self._progress.say).run()
        except BlobDamaged:
            self._damaged.add(blob.digest)
            raise

    def _put(self, at: ModelAt, manifest: Descriptor, *, is_top: bool = False) -> StoredManifest:
        stored = self._store.repositories.put_manifest(
            at.repository,
            manifest.digest,
            self._raw(manifest),
            manifest.media_type,
            tags=[at.tag] if is_top else [],
            principal=PRINCIPAL,
        )
        self._sum.move(manifest.digest, manifest.size)
        return stored


class _Sum:
    """A bar for all blobs, each of which moves by itself, and counts once."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self._position = 0
        self._reached: dict[Digest, int] = {}

    def move(self, digest: Digest, position: int) -> None:
        self._position += position - self._reached.get(digest, 0)
        self._reached[digest] = position
        self.bar.move(self._position)


def _place(listed: Listed) -> ModelAt:
    at = listed.place()
    if at is None:
        raise ModelRefused("the archive does not say where the model goes; name it with --as NAMESPACE/MODEL:TAG")
    return at
