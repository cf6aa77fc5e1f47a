"""A mirror brought up to date as a whole: every tag that it admits, and every blob of those that is not here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from registry.heavy import room_to_parse
from registry.mirror.freshness import Freshness
from registry.mirror.mirroring import Mirroring
from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.wanted import Wanted, WantedTag
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AnswerInvalid, NotFound, RemoteError
from registry.remotes.retry import Retry
from registry.remotes.service import Remotes
from storage.absent import absent_blobs
from storage.digest import Digest
from storage.errors import ManifestUnknown, NameUnknown, StorageError, StorageFull, StorageUnavailable
from storage.manifest import MEDIA_TYPES, Descriptor, Manifest
from storage.reference import RepositoryName, Tag
from storage.repositories import StoredManifest
from storage.store import Store

_TRIES: Final = 3
_MAX_MANIFESTS: Final = 1_000  # below one tag
_MAX_DEPTH: Final = 2  # of indexes
_MAX_SILENCES: Final = 3  # tags in a row for which the upstream does not answer
_LOOK_S: Final = 1.0


class CacheFull(StorageError):
    """What a sync fetched fills the mirrors' room; more would put out what it has just fetched."""


class UpstreamGone(RemoteError):
    """The upstream does not answer any more: asking for the rest would only take time."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did. tags: those that are whole now. blobs, size: what was fetched; size is in bytes."""

    tags: int = 0
    blobs: int = 0
    size: int = 0
    failures: int = 0

    def __add__(self, other: Synced) -> Synced:
        return Synced(
            self.tags + other.tags,
            self.blobs + other.blobs,
            self.size + other.size,
            self.failures + other.failures,
        )


@dataclass(frozen=True, slots=True)
class Means:
    """What a process syncs with. most_bytes: a sync fetches no more than that; None is no bound."""

    remotes: Remotes
    store: Store
    mirrors: Mirrors
    mirroring: Mirroring
    most_bytes: int | None = None

    @classmethod
    def of(cls, remotes: Remotes, store: Store, *, most_bytes: int | None = None) -> Means:
        """For a process that only syncs: one blob after the other, and no request waits."""
        mirroring = Mirroring(remotes, store, fetches=1, waiting=1)
        return cls(remotes, store, Mirrors(store.database), mirroring, most_bytes)


class Sync:
    """One sync of one mirror. What fails is told, and the rest goes on."""

    def __init__(
        self, means: Means, mirror: Mirror, *, tell: Callable[[str], None], allow: tuple[str, ...] = ()
    ) -> None:
        """allow: patterns like the mirror's own, for this sync alone. tell: gets a line for what failed or came."""
        self._means, self._mirror, self._tell = means, mirror, tell
        self._freshness = Freshness(means.store.database)
        self._wanted = Wanted(means.remotes, means.store, means.mirrors, mirror, allow=allow, failed=self._failed)
        self._done = Synced()
        self._silences = 0
        self._manifests = 0  # of the tag at hand

    def run(self) -> Synced:
        """All of it. Raises StorageFull, StorageUnavailable: nothing that follows would fare better."""
        try:
            for name in self._wanted.repositories():
                self._repository(name)
        except UpstreamGone as error:
            self._failed(str(error))
        return self._done

    def _repository(self, name: RepositoryName) -> None:
        try:
            with self._wanted.remote(name) as remote:
                for wanted in self._wanted.tags(name, remote):
                    self._attempt(name, wanted, remote)
        except UpstreamGone:
            raise
        except RemoteError as error:
            self._failed(f"{name}: {error}")

    def _attempt(self, name: RepositoryName, wanted: WantedTag, remote: RemoteRepository) -> None:
        before = self._done
        self._manifests = 0
        try:
            self._tag(name, wanted, remote)
            self._silences = 0
        except (StorageFull, StorageUnavailable):
            raise
        except (RemoteError, StorageError) as error:
            self._failed(f"{name}:{wanted.tag}: {error}")
            self._note_silence(error)
        if self._done.blobs > before.blobs:
            blobs, size = self._done.blobs - before.blobs, self._done.size - before.size
            self._tell(f"{name}:{wanted.tag}: fetched {blobs} blobs, {size} bytes")

    def _tag(self, name: RepositoryName, wanted: WantedTag, remote: RemoteRepository) -> None:
        held = self._held(name, wanted.tag)
        if held is None or not self._is_current(remote, name, wanted.tag, held):
            self._refresh(name, wanted.tag)
            held = self._held(name, wanted.tag)
        if held is not None:
            self._complete(name, held)
            self._done += Synced(tags=1)
        elif wanted.must_exist:
            raise NotFound(f"{self._mirror.upstream} does not have it")

    def _is_current(self, remote: RemoteRepository, name: RepositoryName, tag: Tag, held: StoredManifest) -> bool:
        """Whether the upstream's tag still names what ours does. One that it has no more stays what it was."""
        retry = Retry(first_s=0.2, patience=_TRIES)
        while True:
            try:
                if remote.manifest_digest(tag) != held.digest:
                    return False
                break
            except NotFound:
                self._tell(f"{name}:{tag}: {self._mirror.upstream} has it no more; it stays here")
                return True
            except RemoteError as error:
                retry.pause(error)
        self._freshness.confirm(name, tag)
        return True

    def _refresh(self, name: RepositoryName, reference: Tag | Digest) -> None:
        """Raises AnswerInvalid where what is here may be out of date, UpstreamFailed."""
        warning = self._means.mirroring.refresh(self._mirror, name, reference, is_asked=True)
        if warning is not None:
            raise AnswerInvalid(warning.partition('"')[2].rstrip('"'))

    def _complete(self, name: RepositoryName, stored: StoredManifest, depth: int = 0) -> None:
        """Fetch what the manifest lists and is not here, and of an index what its manifests list."""
        self._manifests += 1
        if self._manifests > _MAX_MANIFESTS or depth > _MAX_DEPTH:
            raise AnswerInvalid(f"an index lists more than {_MAX_MANIFESTS} manifests, or indexes of indexes")
        with room_to_parse(stored.raw):
            parsed = Manifest.parse(stored.raw, stored.media_type)
        for child in (each for each in parsed.children if each.media_type in MEDIA_TYPES):
            self._refresh(name, child.digest)
            self._complete(name, self._means.store.repositories.get_manifest(name, child.digest), depth + 1)
        absent = absent_blobs(self._means.store.database, name, stored.digest)
        for blob in {blob.digest: blob for blob in parsed.required_blobs if blob.digest in absent}.values():
            self._fetch(name, blob)

    def _fetch(self, name: RepositoryName, blob: Descriptor) -> None:
        most = self._means.most_bytes
        if most is not None and self._done.size + blob.size > most:
            raise CacheFull("it would not fit below TONNAGE_MIRROR_LOW with the rest; it is fetched when asked for")
        with self._means.mirroring.fetch(self._mirror, name, blob) as job:
            while not job.wait(_LOOK_S):  # it ends: by retries that are counted, and a pace that it must keep
                pass
            job.result()
        self._done += Synced(blobs=1, size=blob.size)

    def _held(self, name: RepositoryName, tag: Tag) -> StoredManifest | None:
        try:
            return self._means.store.repositories.get_manifest(name, tag)
        except (ManifestUnknown, NameUnknown):
            return None

    def _failed(self, line: str) -> None:
        self._tell(line)
        self._done += Synced(failures=1)

    def _note_silence(self, error: Exception) -> None:
        """Raises UpstreamGone once too many tags in a row have failed for want of an answer."""
        cause = error if isinstance(error, RemoteError) else error.__cause__
        is_silent = isinstance(cause, RemoteError) and cause.is_transient
        self._silences = self._silences + 1 if is_silent else 0
        if self._silences >= _MAX_SILENCES:
            raise UpstreamGone(f"{self._mirror.upstream} does not answer; the rest is left for the next time")
