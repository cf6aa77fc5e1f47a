"""The whole of a mirrored model at once, where a mirror would bring its blobs one by one as they are asked for.

Source: the Ollama API, "POST /api/pull".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial

from registry.heavy import room_to_parse
from registry.mirror.mirroring import Mirroring
from registry.mirror.mirrors import Mirror
from registry.remotes.endpoint import RemoteManifest
from registry.remotes.errors import RemoteError, UpstreamFailed
from registry.remotes.fetch import check_size
from registry.remotes.jobs import Job
from registry.remotes.pull import model_child
from registry.remotes.slots import Slot
from registry.remotes.statuses import JSON, blob_line, failed, in_order, status, watched
from registry.remotes.stored_pull import MAX_INDEXES
from storage.digest import Digest
from storage.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, NameUnknown
from storage.manifest import Descriptor, Kind, Manifest
from storage.reference import ModelName, Tag
from storage.repositories import StoredManifest
from storage.store import Store


class MirrorPull:
    """One pull. Other repositories than the mirror's are not looked into."""

    def __init__(
        self,
        mirroring: Mirroring,
        mirror: Mirror,
        store: Store,
        name: ModelName,
        *,
        slot: AbstractContextManager[Slot],
        is_gone: Callable[[], bool],
    ) -> None:
        """slot: the place that this pull takes while it runs."""
        self._mirroring, self._mirror, self._store, self._name = mirroring, mirror, store, name
        self._slot, self._is_gone = slot, is_gone

    def run(self) -> Generator[JSON, None, None]:
        """The lines of the answer. Raises TransferFailed, QueueFull, RequestCancelled, StorageError."""
        with self._slot:
            yield from self._steps()

    def _steps(self) -> Iterator[JSON]:
        yield status("pulling manifest")
        try:
            blobs = in_order(self._model())
        except (ManifestUnknown, NameUnknown):
            raise failed("pull model manifest: file does not exist", self._name) from None
        except (UpstreamFailed, ManifestInvalid, RemoteError) as error:
            raise failed(f"pull model manifest: {error}", self._name) from error
        for blob in blobs:
            yield from self._blob(blob)
        yield status("verifying sha256 digest")  # done: each blob was, before it became one
        yield status("writing manifest")
        yield status("success")

    def _model(self) -> Manifest:
        """What the tag names; of an index, the manifest that is a model. Raises StorageError."""
        stored = self._fresh(self._name.tag)
        for _ in range(MAX_INDEXES):
            with room_to_parse(stored.raw):
                child = model_child(RemoteManifest(stored.raw, stored.digest, stored.media_type))
            if child is None:
                break
            stored = self._fresh(child)
        with room_to_parse(stored.raw):
            parsed = Manifest.parse(stored.raw, stored.media_type)
        if parsed.kind is Kind.INDEX:
            raise ManifestInvalid("an index of indexes names no model")
        return parsed

    def _fresh(self, reference: Tag | Digest) -> StoredManifest:
        self._mirroring.refresh(self._mirror, self._name.repository, reference, is_asked=True)
        return self._store.repositories.get_manifest(self._name.repository, reference)

    def _blob(self, blob: Descriptor) -> Iterator[JSON]:
        name = self._name.repository
        try:
            if not self._is_here(blob):
                with self._mirroring.fetch(self._mirror, name, blob) as job:
                    yield from watched(job, partial(_line, blob, job), self._is_gone)
                    job.result()
        except RemoteError as error:
            raise failed(str(error), self._name) from error
        yield blob_line("pulling", blob, blob.size)

    def _is_here(self, blob: Descriptor) -> bool:
        """Whether the blob has come; then it counts as pulled. Raises AnswerInvalid.

        The manifest that lists it keeps it; a lease would keep the cache from giving it up for a day.
        """
        name = self._name.repository
        try:
            check_size(blob, self._store.blobs.stat(name, blob.digest).size)
        except (BlobUnknown, NameUnknown):
            return False
        self._mirroring.reads.note(name, blob.digest)
        return True


def _line(blob: Descriptor, job: Job[None]) -> JSON:
    return blob_line("pulling", blob, job.completed)
