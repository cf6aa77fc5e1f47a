"""A model of another registry into the store: blobs first, the manifest last, byte for byte as it came.

Source: the Ollama API, "POST /api/pull"; the Ollama registry protocol, "Pull".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Final, TypeVar

from registry.heavy import room_to_parse
from registry.remotes.endpoint import RemoteManifest, RemoteRepository
from registry.remotes.errors import NotFound, RemoteError
from registry.remotes.fetch import Fetch, is_held
from registry.remotes.http import Outbound
from registry.remotes.jobs import Job, started
from registry.remotes.places import Place
from registry.remotes.pull import model_child
from registry.remotes.retry import Retry
from registry.remotes.service import Remotes
from registry.remotes.slots import Slot
from registry.remotes.statuses import JSON, blob_line, failed, in_order, status, told, watched
from storage.digest import Digest
from storage.errors import ManifestInvalid
from storage.manifest import MEDIA_TYPES, Descriptor, Kind, Manifest
from storage.reference import RepositoryName
from storage.repositories import StoredManifest
from storage.store import Store

T = TypeVar("T")

_MANIFEST_TRIES: Final = 3
MAX_INDEXES: Final = 2  # one within the other


class StoredPull:
    """One pull. Nothing of the model is visible by its name before all of it is here and verified."""

    _slot: Slot

    def __init__(
        self,
        remotes: Remotes,
        store: Store,
        place: Place,
        *,
        principal: str,
        may_read: Callable[[RepositoryName], bool],
        may_write: Callable[[RepositoryName], bool],
        is_gone: Callable[[], bool],
        stored: Callable[[StoredManifest], None],
    ) -> None:
        """may_read: a blob that another repository holds is taken from there only if the caller may read that one.

        may_write: asked once more before the manifest is: while the blobs came, a mirror may have got the repository.
        stored: told of the manifest once the model is visible.
        """
        self._remotes, self._store, self._place = remotes, store, place
        self._principal, self._is_gone, self._stored = principal, is_gone, stored
        self._may_read, self._may_write = may_read, may_write
        self._target = place.name.repository

    def run(self) -> Generator[JSON, None, None]:
        """The lines of the answer. Raises TransferFailed, QueueFull, RequestCancelled, StorageError."""
        with self._remotes.slot(self._principal) as self._slot:
            yield status("pulling manifest")
            try:
                remote = self._remotes.repository(self._place)
                found = self._manifest(remote)
                parsed = _parse(found)
                blobs = in_order(parsed)
            except NotFound:
                raise failed("pull model manifest: file does not exist", self._place) from None
            except RemoteError as error:
                raise failed(f"pull model manifest: {told(error)}", self._place) from error
            except ManifestInvalid as error:
                raise failed(f"pull model manifest: {error}", self._place) from error
            for blob in blobs:
                yield from self._blob(remote, blob)
            for blob in blobs:  # a transfer of days outlives the lease that its first blob got
                if not is_held(self._store, self._target, blob, self._principal):
                    yield from self._blob(remote, blob)
            yield status("verifying sha256 digest")  # done: each blob was, before it became one
            yield status("writing manifest")
            yield from self._write(found, parsed)
            yield status("success")

    def _manifest(self, remote: RemoteRepository) -> RemoteManifest:
        """What the tag names; of an index, the manifest that is a model."""
        found = self._do(remote, lambda each: each.manifest(self._place.name.tag))
        for _ in range(MAX_INDEXES):
            with room_to_parse(found.raw):
                child = model_child(found)
            if child is None:
                break
            found = self._do(remote, partial(_manifest_of, digest=child))
        return found

    def _do(self, remote: RemoteRepository, ask: Callable[[RemoteRepository], T]) -> T:
        """A short exchange, in a thread that ends when the client leaves."""

        def work(job: Job[T]) -> T:
            retry = Retry(sleep=job.sleep, patience=_MANIFEST_TRIES)
            while True:
                try:
                    return ask(remote.over(http))
                except RemoteError as error:
                    retry.pause(error)

        with closing(self._remotes.outbound(self._place)) as http, started(Job(work, abort=http.abort)) as job:
            self._slot.add(job)
            for _ in watched(job, dict, self._is_gone):
                pass
            return job.result()

    def _blob(self, remote: RemoteRepository, blob: Descriptor) -> Iterator[JSON]:
        try:
            if not self._is_here(blob):
                yield from self._download(remote, blob)
        except RemoteError as error:
            raise failed(str(error), self._place) from error
        yield blob_line("pulling", blob, blob.size)

    def _is_here(self, blob: Descriptor) -> bool:
        """Whether the repository has the blob, or gets it from one that the caller may read."""
        if is_held(self._store, self._target, blob, self._principal):
            return True
        mount = partial(self._store.blobs.mount, blob.digest, into=self._target, principal=self._principal)
        sources = (name for name in self._store.blobs.holders(blob.digest) if self._may_read(name))
        return any(mount(source=name) for name in sources) and is_held(self._store, self._target, blob, self._principal)

    def _download(self, remote: RemoteRepository, blob: Descriptor) -> Iterator[JSON]:
        """Wait for the blob with everybody else of this process who wants it in the same repository."""

        def make() -> Job[None]:
            http: Outbound = self._remotes.outbound(self._place)
            fetch = Fetch(remote.over(http), self._store, self._target, blob, principal=self._principal)

            def work(job: Job[None]) -> None:
                with closing(http):
                    fetch(job)

            return Job(work, abort=http.abort)

        with self._remotes.downloads.joined((self._target, blob.digest), make) as job:
            self._slot.add(job)
            yield from watched(job, lambda: blob_line("pulling", blob, job.completed), self._is_gone)
            job.result()
        is_held(self._store, self._target, blob, self._principal)  # whoever fetched it, it stays for us too

    def _write(self, found: RemoteManifest, parsed: Manifest) -> Iterator[JSON]:
        """Let the tag name the manifest; one that it named before, and nothing else does, goes."""
        repositories, tag = self._store.repositories, self._place.name.tag
        if not self._may_write(self._target):
            raise failed(f"{self._target} has become a mirror's meanwhile; pull it again, from there", self._place)
        with room_to_parse(found.raw):
            stored = repositories.put_manifest(
                self._target, tag, found.raw, parsed.media_type, principal=self._principal
            )
        self._stored(stored)
        for _, before in stored.replaced:
            left = repositories.remove_untagged(self._target, before) if before != stored.digest else set()
            if left - {str(blob.digest) for blob in parsed.blobs}:
                yield status("removing unused layers")  # by the next sweep


def _manifest_of(remote: RemoteRepository, digest: Digest) -> RemoteManifest:
    return remote.manifest(digest)


def _parse(found: RemoteManifest) -> Manifest:
    """The manifest, under the type that it, or else the answer, says. Raises ManifestInvalid."""
    with room_to_parse(found.raw):
        try:
            parsed = Manifest.parse(found.raw, found.media_type if found.media_type in MEDIA_TYPES else None)
        except ManifestInvalid:
            parsed = Manifest.parse(found.raw)
    if parsed.kind is Kind.INDEX:
        raise ManifestInvalid("an index of indexes names no model")
    return parsed
