"""The whole of a mirrored model at once, where a mirror would bring its blobs one by one as they are asked for.

Source: the Ollama API, "POST /api/pull".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial

from registry.heavy import room_to_parse
from registry.mirror.mirroring import PRINCIPAL, Mirroring
from registry.mirror.mirrors import Mirror
from registry.remotes.endpoint import RemoteManifest
from registry.remotes.errors import RemoteError, UpstreamFailed
from registry.remotes.fetch import is_held
from registry.remotes.jobs import Job
from registry.remotes.pull import model_child
from registry.remotes.statuses import JSON, blob_line, failed, in_order, status, watched
from storage.digest import Digest
from storage.errors import ManifestInvalid, ManifestUnknown, NameUnknown
from storage.manifest import Descriptor, Manifest
from storage.reference import ModelName, Tag
from storage.repositories import StoredManifest
from storage.store import Store


class MirrorPull:
    """One pull. Other repositories than the mirror's are not looked into."""

    def __init__(
        self, mirroring: Mirroring, mirror: Mirror, store: Store, name: ModelName, *, is_gone: Callable[[], bool]
    ) -> None:
        self._mirroring, self._mirror, self._store, self._name = mirroring, mirror, store, name
        self._is_gone = is_gone

    def run(self) -> Generator[JSON, None, None]:
        """The lines of the answer. Raises TransferFailed, RequestCancelled, StorageError."""
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
        with room_to_parse(stored.raw):
            child = model_child(RemoteManifest(stored.raw, stored.digest, stored.media_type))
        if child is not None:
            stored = self._fresh(child)
        with room_to_parse(stored.raw):
            return Manifest.parse(stored.raw, stored.media_type)

    def _fresh(self, reference: Tag | Digest) -> StoredManifest:
        self._mirroring.refresh(self._mirror, self._name.repository, reference, is_asked=True)
        return self._store.repositories.get_manifest(self._name.repository, reference)

    def _blob(self, blob: Descriptor) -> Iterator[JSON]:
        name = self._name.repository
        try:
            if not is_held(self._store, name, blob, PRINCIPAL):
                with self._mirroring.fetch(self._mirror, name, blob) as job:
                    yield from watched(job, partial(_line, blob, job), self._is_gone)
                    job.result()
        except RemoteError as error:
            raise failed(str(error), self._name) from error
        yield blob_line("pulling", blob, blob.size)


def _line(blob: Descriptor, job: Job[None]) -> JSON:
    return blob_line("pulling", blob, job.completed)
