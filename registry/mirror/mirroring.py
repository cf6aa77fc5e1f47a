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
from registry.mirror.cache import MirrorCache, MirrorReads
from registry.mirror.freshness import Freshness
from registry.mirror.mirrors import Mirror
from registry.remotes.endpoint import RemoteManifest, RemoteRepository
from registry.remotes.errors import AnswerInvalid, NotFound, RemoteError, ServerBusy, UpstreamBusy, UpstreamFailed
from registry.remotes.fetch import Fetch
from registry.remotes.jobs import Job
from registry.remotes.retry import Retry
from registry.remotes.service import Remotes
from registry.remotes.slots import Slots
from registry.remotes.upstream import Upstream
from runtime.errors import QueueFull
from storage.digest import Digest
from storage.errors import ManifestInvalid, ManifestUnknown, NameInvalid, NameUnknown, StorageError
from storage.listed import manifests_with
from storage.manifest import MEDIA_TYPES, Descriptor, Manifest
from storage.reference import RepositoryName, Tag
from storage.repositories import StoredManifest
from storage.store import Store

PRINCIPAL: Final = "mirror"  # whose the leases of fetched blobs are
LINGER_S: Final = 10.0  # clients ask for a blob's parts one after another; between two of them nobody may be there
_PATIENCE_S: Final = 2.0  # that we wait for news of what is here already
_LONGEST_S: Final = 35.0
_LOOK_S: Final = 0.25
_MOST_LISTED: Final = 1000
_LISTED_S: Final = 60.0
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A blob of a mirror, for a client."""

    mirror: Mirror
    name: RepositoryName
    blob: Descriptor
    client: str | None


class Mirroring:
    """One for a process. fetches: how many blobs it fetches at once. waiting: how many requests wait for such.

    cache: what makes room before a fetch, where that is not somebody else's affair.
    """

    def __init__(
        self, remotes: Remotes, store: Store, *, fetches: int, waiting: int, cache: MirrorCache | None = None
    ) -> None:
        self._remotes, self._store, self._cache = remotes, store, cache
        self._freshness = Freshness(store.database)
        self.reads = MirrorReads(store.database)
        self._places = Slots(fetches)
        self._listed: dict[tuple[RepositoryName, Digest], tuple[float, Descriptor]] = {}
        self._waiting = threading.BoundedSemaphore(waiting)
        self._known: dict[Upstream, tuple[float, RemoteRepository]] = {}
        self._lock = threading.Lock()

    def refresh(
        self,
        mirror: Mirror,
        name: RepositoryName,
        reference: Tag | Digest,
        *,
        is_asked: bool = False,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """Have the manifest in the store, as new as the mirror wants it; a `Warning` for the client where it is not.

        What the upstream does not have, or the mirror does not admit, simply stays unknown. is_asked: for the newest,
        however new it is. is_gone: whether nobody waits any more. Raises UpstreamFailed.
        """
        held, is_down = self._held(name, reference), self._freshness.is_down(mirror.upstream, name)
        tag = reference if isinstance(reference, Tag) else None
        ttl_s = 0.0 if is_asked else mirror.ttl_s
        if held is not None and (tag is None or self._freshness.is_fresh(name, tag, ttl_s)):
            return None
        if not mirror.admits(name, tag):
            return None
        if is_down and not is_asked:
            return _unanswered(mirror, is_held=held is not None)
        if self._freshness.is_missing(name, reference) and not is_asked:
            return _missing(mirror) if held is not None else None
        asked = _Asked(mirror, name, reference, held)
        with self._joined(
            ("manifest", name, str(reference)), self._upstream(mirror, name), partial(self._update, asked)
        ) as job:
            if held is not None and not is_asked:
                has_ended = job.wait(_PATIENCE_S)
            else:
                with self.room_to_wait():
                    has_ended = _await(job, _LONGEST_S, is_gone)
            if not has_ended:
                if not is_gone():  # who leaves early says nothing about the upstream
                    self._freshness.is_slow(mirror.upstream, name)
                return _unanswered(mirror, is_held=held is not None)
        return self._outcome(job, asked)

    def listed(self, name: RepositoryName, digest: Digest) -> Descriptor | None:
        """What a manifest of the repository says of the blob: only such are fetched."""
        now = time.monotonic()
        with self._lock:
            until, known = self._listed.get((name, digest), (0.0, None))
        if known is not None and until > now:
            return known
        for raw, media_type in manifests_with(self._store.database, name, digest):
            with room_to_parse(raw):
                blobs = Manifest.parse(raw, media_type).blobs
            found = next((blob for blob in blobs if blob.digest == digest), None)
            if found is not None:
                with self._lock:
                    if len(self._listed) >= _MOST_LISTED:
                        self._listed.clear()
                    self._listed[name, digest] = (now + _LISTED_S, found)
                return found
        return None

    def fetch(
        self, mirror: Mirror, name: RepositoryName, blob: Descriptor, *, client: str | None = None
    ) -> AbstractContextManager[Job[None]]:
        """The job that brings the blob, one for all of this process who want it; its session is one for all processes.

        It goes on for a while when the last has left. client: who wants it, to have no more than their share of the
        fetches. Its result raises RemoteError, UpstreamBusy, StorageError.
        """
        work = partial(self._fetch, _Wanted(mirror, name, blob, client))
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

    def _fetch(self, wanted: _Wanted, job: Job[None], remote: RemoteRepository) -> None:
        name, blob = wanted.name, wanted.blob
        try:
            with self._places.slot(wanted.client):
                if not self._mount(wanted.mirror, name, blob.digest):
                    if self._cache is not None and not self._cache.make_room(name, blob):
                        raise UpstreamFailed(
                            "the mirrors have no room for it; the operator may raise TONNAGE_MIRROR_HIGH"
                        )
                    Fetch(remote, self._store, name, blob, principal=PRINCIPAL)(job)
                self.reads.fetched(name, blob.digest, principal=PRINCIPAL)
        except QueueFull:
            raise UpstreamBusy("too many blobs are being fetched; try again in a moment") from None

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
        name, reference, upstream = asked.name, asked.reference, asked.mirror.upstream
        try:
            self._ask(asked, Retry(first_s=0.2, sleep=job.sleep, patience=_TRIES), remote)
        except NotFound:
            self._freshness.missed(name, reference)
            raise
        except RemoteError as error:
            self._freshness.failed(upstream, name, error)  # here, for whoever waited for it may have left
            raise
        self._freshness.answered(upstream, name)
        if isinstance(reference, Tag):
            self._freshness.confirm(name, reference)

    def _ask(self, asked: _Asked, retry: Retry, remote: RemoteRepository) -> None:
        while True:
            try:
                if not asked.is_answered_by(remote):
                    self._put(asked.name, asked.reference, remote.manifest(asked.reference))
                return
            except RemoteError as error:
                retry.pause(error)

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

    def _outcome(self, job: Job[None], asked: _Asked) -> str | None:
        """The `Warning` that the end of an update deserves. Raises UpstreamFailed, StorageError."""
        is_held = asked.held is not None
        try:
            job.result()
        except NotFound:
            return _missing(asked.mirror) if is_held else None
        except RemoteError as error:
            if not is_held:
                raise upstream_failed(error) from error
            return _unanswered(asked.mirror, is_held=True)
        except StorageError:
            if not is_held:
                raise
            return f'199 - "what {asked.mirror.upstream} says now cannot be kept here; this is what it said before"'
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


def _await(job: Job[None], seconds: float, is_gone: Callable[[], bool]) -> bool:
    """Whether the job has ended, after so long at most, or until nobody waits for it."""
    deadline = time.monotonic() + seconds
    while not job.wait(_LOOK_S):
        if time.monotonic() > deadline or is_gone():
            return False
    return True


def _unanswered(mirror: Mirror, *, is_held: bool) -> str:
    """The `Warning` for what is here. Raises UpstreamFailed where nothing is."""
    if not is_held:
        raise UpstreamFailed(f"{mirror.upstream} does not answer; try again in a while")
    return f'111 - "{mirror.upstream} does not answer; this is what it said before"'


def _missing(mirror: Mirror) -> str:
    return f'199 - "{mirror.upstream} has it no more; this is what it was"'


def upstream_failed(error: RemoteError) -> UpstreamFailed:
    """The error as the answer to who wanted what is not here."""
    kind = UpstreamBusy if isinstance(error, ServerBusy) else UpstreamFailed
    return kind(f"the upstream did not give it: {error}")
