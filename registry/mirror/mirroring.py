"""What a mirror does when it is asked: believe what is here, ask the upstream, fetch what is missing.

Source: the Ollama registry protocol, "Pull"; the OCI distribution specification, "Pulling manifests".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from registry.heavy import room_to_parse
from registry.mirror.cache import MirrorReads
from registry.mirror.freshness import Freshness
from registry.mirror.mirrors import Mirror
from registry.remotes.endpoint import RemoteManifest, RemoteRepository
from registry.remotes.errors import AnswerInvalid, NotFound, RemoteError, ServerBusy, UpstreamBusy, UpstreamFailed
from registry.remotes.fetch import Fetch
from registry.remotes.jobs import Job
from registry.remotes.retry import Retry
from registry.remotes.service import Remotes
from registry.remotes.upstream import Upstream
from storage.digest import Digest
from storage.errors import ManifestInvalid, ManifestUnknown, NameInvalid, NameUnknown
from storage.listed import manifests_with
from storage.manifest import MEDIA_TYPES, Descriptor, Manifest
from storage.reference import RepositoryName, Tag
from storage.repositories import StoredManifest
from storage.store import Store

PRINCIPAL: Final = "mirror"  # whose the leases of fetched blobs are
LINGER_S: Final = 10.0  # clients ask for a blob's parts one after another; between two of them nobody may be there
_PATIENCE_S: Final = 2.0  # that we wait for news of what is here already
_LONGEST_S: Final = 120.0
_TRIES: Final = 3
_MOST_KNOWN: Final = 100
_KNOWN_S: Final = 300.0  # then its token's file is read again


@dataclass(frozen=True, slots=True)
class _Asked:
    """A manifest of a mirror. held: what is here under that reference."""

    mirror: Mirror
    name: RepositoryName
    reference: Tag | Digest
    held: StoredManifest | None

    def is_answered_by(self, remote: RemoteRepository) -> bool:
        """Whether the tag names what it named; asked without its bytes, which registries count."""
        if self.held is None or not isinstance(self.reference, Tag):
            return False
        return remote.manifest_digest(self.reference) == self.held.digest


class Mirroring:
    """One for a process. fetches: how many blobs it fetches at once. waiting: how many requests wait for such."""

    def __init__(self, remotes: Remotes, store: Store, *, fetches: int, waiting: int) -> None:
        self._remotes, self._store = remotes, store
        self._freshness = Freshness(store.database)
        self.reads = MirrorReads(store.database)
        self._places = threading.BoundedSemaphore(fetches)
        self._waiting = threading.BoundedSemaphore(waiting)
        self._known: dict[Upstream, tuple[float, RemoteRepository]] = {}
        self._lock = threading.Lock()

    def refresh(
        self, mirror: Mirror, name: RepositoryName, reference: Tag | Digest, *, is_asked: bool = False
    ) -> str | None:
        """Have the manifest in the store, as new as the mirror wants it; a `Warning` for the client where it is not.

        What the upstream does not have, or the mirror does not admit, simply stays unknown. is_asked: for the newest,
        however new it is. Raises UpstreamFailed.
        """
        held = self._held(name, reference)
        tag = reference if isinstance(reference, Tag) else None
        ttl_s = 0.0 if is_asked else mirror.ttl_s
        if held is not None and (tag is None or self._freshness.is_fresh(name, tag, ttl_s)):
            return None
        if not mirror.admits(name, tag):
            return None
        if held is not None and not is_asked and self._freshness.is_down(mirror.upstream):
            return f'111 - "{mirror.upstream} does not answer; this is what it said before"'
        work = partial(self._update, _Asked(mirror, name, reference, held))
        with self._joined(("manifest", name, str(reference)), self._upstream(mirror, name), work) as job:
            is_urgent = held is not None and not is_asked
            if not job.wait(_PATIENCE_S if is_urgent else _LONGEST_S):
                if held is None:
                    raise UpstreamFailed(f"{mirror.upstream} takes too long")
                return f'110 - "{mirror.upstream} takes its time; this is what it said before"'
        return self._outcome(job, mirror, is_held=held is not None)

    def listed(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """What a manifest of the repository says of the blob: only such are fetched."""
        rows = manifests_with(self._store.database, name, digest)
        for raw, media_type in rows:
            with room_to_parse(raw):
                blobs = Manifest.parse(raw, media_type).blobs
            found = next((blob for blob in blobs if blob.digest == digest), None)
            if found is not None:
                return found
        return None

    def fetch(self, mirror: Mirror, name: RepositoryName, blob: Descriptor) -> AbstractContextManager[Job[None]]:
        """The job that brings the blob, one for all of this process who want it; its session is one for all processes.

        It goes on for a while when the last has left. Its result raises RemoteError, UpstreamBusy, StorageError.
        """
        work = partial(self._fetch, mirror, name, blob)
        return self._joined(("blob", name, blob.digest), self._upstream(mirror, name), work)

    @contextmanager
    def room_to_wait(self) -> Iterator[None]:
        """A thread for a request that waits for a blob; others must stay for those that wait for nothing.

        Raises UpstreamBusy.
        """
        if not self._waiting.acquire(blocking=False):
            raise UpstreamBusy("too many requests wait for blobs that are being fetched; try again in a moment")
        try:
            yield
        finally:
            self._waiting.release()

    @contextmanager
    def _joined(
        self, key: object, upstream: Upstream, work: Callable[[Job[None], RemoteRepository], None]
    ) -> Iterator[Job[None]]:
        def make() -> Job[None]:
            http = self._remotes.outbound(upstream)

            def run(job: Job[None]) -> None:
                with closing(http):
                    work(job, self._repository(upstream).over(http))

            return Job(run, abort=http.abort)

        with self._remotes.downloads.joined(("mirror", key), make, linger_s=LINGER_S) as job:
            yield job

    def _repository(self, upstream: Upstream) -> RemoteRepository:
        """One for a while, since it knows its tokens. Raises UrlInvalid, LocalFileUnfit."""
        now = time.monotonic()
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            until, found = self._known.get(upstream, (0.0, None))
            if found is None or until < now:
                found = self._remotes.repository(upstream)
                self._known[upstream] = (now + _KNOWN_S, found)
            return found

    def _fetch(
        self, mirror: Mirror, name: RepositoryName, blob: Descriptor, job: Job[None], remote: RemoteRepository
    ) -> None:
        if not self._places.acquire(blocking=False):
            raise UpstreamBusy("too many blobs are being fetched; try again in a moment")
        try:
            if not self._mount(mirror, name, blob.digest):
                Fetch(remote, self._store, name, blob, principal=PRINCIPAL)(job)
            self.reads.fetched(name, blob.digest, principal=PRINCIPAL)
        finally:
            self._places.release()

    def _mount(self, mirror: Mirror, name: RepositoryName, digest: Digest) -> bool:
        """Take the blob from another repository of the same mirror.

        From no other: a manifest that lists a digest proves nothing about who may read the bytes.
        """
        mount, holders = self._store.blobs.mount, self._store.blobs.holders(digest)
        return any(
            mount(digest, source=each, into=name, principal=PRINCIPAL) for each in holders if mirror.covers(each)
        )

    def _update(self, asked: _Asked, job: Job[None], remote: RemoteRepository) -> None:
        """Ask the upstream; store what it says. Raises RemoteError, StorageError."""
        name, reference = asked.name, asked.reference
        retry = Retry(first_s=0.2, sleep=job.sleep, patience=_TRIES)
        while True:
            try:
                if not asked.is_answered_by(remote):
                    self._put(name, reference, remote.manifest(reference))
                break
            except RemoteError as error:
                retry.pause(error)
        if isinstance(reference, Tag):
            self._freshness.confirm(name, reference)
        self._freshness.answered(asked.mirror.upstream)

    def _put(self, name: RepositoryName, reference: Tag | Digest, found: RemoteManifest) -> None:
        """Sparse: its blobs come when they are asked for. Raises AnswerInvalid."""
        media_type = found.media_type if found.media_type in MEDIA_TYPES else None
        try:
            with room_to_parse(found.raw):
                self._store.repositories.put_manifest(
                    name, reference, found.raw, media_type, allow_sparse=True, principal=PRINCIPAL
                )
        except ManifestInvalid as error:
            raise AnswerInvalid(f"the upstream sent no manifest: {error}") from error

    def _outcome(self, job: Job[None], mirror: Mirror, *, is_held: bool) -> str | None:
        """The `Warning` that the end of an update deserves. Raises UpstreamFailed."""
        try:
            job.result()
        except NotFound:
            return f'199 - "{mirror.upstream} has it no more; this is what it was"' if is_held else None
        except RemoteError as error:
            self._freshness.failed(mirror.upstream, error)
            if is_held:
                return f'111 - "{mirror.upstream} does not answer; this is what it said before"'
            raise upstream_failed(error) from error
        return None

    def _held(self, name: RepositoryName, reference: Tag | Digest) -> StoredManifest | None:
        try:
            return self._store.repositories.get_manifest(name, reference)
        except (ManifestUnknown, NameUnknown):
            return None

    def _upstream(self, mirror: Mirror, name: RepositoryName) -> Upstream:
        try:
            return Upstream(mirror.upstream, mirror.remote_name(name), mirror.token_path)
        except NameInvalid:
            raise NameUnknown("no such repository", name=str(name)) from None


def upstream_failed(error: RemoteError) -> UpstreamFailed:
    """The error as the answer to who wanted what is not here."""
    kind = UpstreamBusy if isinstance(error, ServerBusy) else UpstreamFailed
    return kind(f"the upstream did not give it: {error}")
