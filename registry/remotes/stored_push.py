"""A model of the store to another registry: each blob that it lacks, then the manifest, byte for byte as it is here.

Source: the Ollama API, "POST /api/push"; the Ollama registry protocol, "Push".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import Forbidden, LocalFileUnfit, RemoteError, Unauthorized
from registry.remotes.http import Outbound
from registry.remotes.jobs import Job, started
from registry.remotes.outgoing import Outgoing, parsed
from registry.remotes.places import Place
from registry.remotes.progress import Bar
from registry.remotes.push import Push
from registry.remotes.row_notes import RowNotes
from registry.remotes.service import Remotes
from registry.remotes.slots import Slot
from registry.remotes.statuses import JSON, TransferFailed, blob_line, failed, in_order, status, told, watched
from registry.remotes.uploads import Notes
from storage.digest import Digest
from storage.errors import ManifestUnknown, NameInvalid, NameUnknown, StorageError
from storage.manifest import Descriptor, Manifest
from storage.reference import ModelName, RepositoryName, Tag
from storage.repositories import StoredManifest
from storage.store import Store

_SEND_BYTES: Final = 64 * 1024  # one piece must leave within the connect time-out, on a slow line too


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob of the store as something to push: read from the driver piece by piece."""

    store: Store
    repository: RepositoryName
    digest: Digest
    size: int
    mount_from: str = ""

    def part(self, start: int, length: int) -> Iterator[bytes]:
        try:
            with self.store.blobs.open(self.repository, self.digest, start=start) as file:
                while length:
                    piece = file.read(min(length, _SEND_BYTES))
                    if not piece:
                        raise LocalFileUnfit(f"blob {self.digest} is shorter than it was")
                    length -= len(piece)
                    yield piece
        except (StorageError, OSError) as error:  # must not look like a broken connection
            raise LocalFileUnfit(f"blob {self.digest} cannot be read here any more") from error


class StoredPush:
    """One push."""

    def __init__(
        self,
        remotes: Remotes,
        store: Store,
        place: Place,
        *,
        principal: str,
        is_gone: Callable[[], bool],
        leaving: Callable[[StoredManifest], None],
    ) -> None:
        """leaving: told of the manifest before the first byte of the model leaves."""
        self._remotes, self._store, self._place = remotes, store, place
        self._principal, self._is_gone, self._leaving = principal, is_gone, leaving

    def run(self) -> Generator[JSON, None, None]:
        """The lines of the answer. Raises TransferFailed, QueueFull, RequestCancelled, StorageError."""
        with self._remotes.slot(self._principal) as slot:
            yield status("retrieving manifest")
            manifest = self._stored_manifest()
            if manifest is None:
                yield status("couldn't retrieve manifest")
                raise TransferFailed(f"model {self._place.name.display!r} not found")
            parts = Outgoing(self._store, self._place.name.repository, manifest)
            self._leaving(manifest)
            try:
                yield from self._push(manifest, parts, slot)
            except (Unauthorized, Forbidden) as error:  # clients look for these words
                raise failed(f"access denied: {error}", self._place) from error
            except RemoteError as error:
                raise failed(told(error), self._place) from error
            yield status("success")

    def _push(self, whole: StoredManifest, parts: Outgoing, slot: Slot) -> Iterator[JSON]:
        with closing(self._remotes.outbound(self._place)) as http:
            remote = self._remotes.repository(self._place, is_pushing=True).over(http)
            conversation = _Conversation(remote, http, RowNotes(self._store.database), slot)
            for child in parts.children():
                yield from self._one(conversation, child, child.digest)
            yield from self._one(conversation, whole, self._place.name.tag)

    def _one(self, conversation: _Conversation, manifest: StoredManifest, reference: Tag | Digest) -> Iterator[JSON]:
        """A manifest after what it needs."""
        body = parsed(manifest)
        origins = _origins(body)
        for blob in in_order(body):
            source = self._source(blob, origins.get(str(blob.digest), ""))
            with conversation.step(partial(Push.push_blob, blob=source)) as job:
                yield from watched(job, partial(_line, blob, job), self._is_gone)
                job.result()
            yield blob_line("pushing", blob, blob.size)
        yield status("pushing manifest")
        last = partial(Push.push_manifest, reference=reference, raw=manifest.raw, media_type=manifest.media_type)
        with conversation.step(last) as job:
            for _ in watched(job, dict, self._is_gone):
                pass
            job.result()

    def _source(self, blob: Descriptor, mount_from: str) -> StoredBlob:
        return StoredBlob(self._store, self._place.name.repository, blob.digest, blob.size, mount_from)

    def _stored_manifest(self) -> StoredManifest | None:
        repositories, name = self._store.repositories, self._place.name
        try:
            return repositories.get_manifest(name.repository, repositories.resolve_tag(name.repository, name.tag))
        except (NameUnknown, ManifestUnknown):
            return None


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What the steps of one push share: tokens, a slot, and connections that end together."""

    remote: RemoteRepository
    http: Outbound
    notes: Notes
    slot: Slot

    @contextmanager
    def step(self, what: Callable[[Push], None]) -> Iterator[Job[None]]:
        def work(job: Job[None]) -> None:
            what(Push(self.remote, self.notes, _JobProgress(job), sleep=job.sleep))

        with started(Job(work, abort=self.http.abort)) as job:
            self.slot.add(job)
            yield job


@dataclass(frozen=True, slots=True)
class _JobProgress:
    """Progress as the watchers of a job see it."""

    job: Job[None]

    def say(self, line: str) -> None:
        pass  # retries are no news to the client

    def bar(self, label: str, total: int) -> Bar:
        return self

    def move(self, position: int) -> None:
        self.job.check()
        self.job.completed = position

    def close(self) -> None:
        pass


def _line(blob: Descriptor, job: Job[None]) -> JSON:
    return blob_line("pushing", blob, job.completed)


def _origins(manifest: Manifest) -> dict[str, str]:
    """By digest, the repository that a layer says it comes from, as the same registry would call it."""
    found: dict[str, str] = {}
    for layer in manifest.body.get("layers") or []:
        origin = layer.get("from")
        if not isinstance(origin, str) or not origin:
            continue
        with suppress(NameInvalid):  # a file's name, perhaps
            found[str(layer.get("digest"))] = "/".join(ModelName.parse(origin).repository.text.split("/")[-2:])
    return found
