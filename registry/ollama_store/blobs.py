"""One blob out of an Ollama folder into a repository: linked, else copied, and hashed either way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Final

from registry.ollama_store.copying import copy
from registry.ollama_store.errors import FileUnfit, LinkRefused, ModelRefused
from registry.ollama_store.folder import BlobFile, OllamaFolder
from registry.ollama_store.sharing import keeps_files, share
from registry.remotes.progress import Progress
from storage.errors import BlobUnknown, DigestInvalid, NameUnknown, UploadBusy, UploadUnknown
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.store import Store

_SHOWN_BYTES: Final = 64 * 1024 * 1024  # a smaller one is done before its bar can be read


class How(Enum):
    """How a blob came to be in the repository."""

    LINKED = "linked"
    COPIED = "copied"
    HERE = "already here"


class Blobs:
    """Brings blobs of `folder` into repositories of the store, for `principal`."""

    def __init__(
        self, store: Store, folder: OllamaFolder, progress: Progress, *, principal: str, may_link: bool
    ) -> None:
        self._store, self._folder, self._progress, self._principal = store, folder, progress, principal
        self._may_link = may_link and keeps_files(store)

    def check(self, blob: Descriptor) -> None:
        """A cheap look, before hours of work for a model that lacks something. Raises ModelRefused."""
        if not self._store.blobs.holders(blob.digest):
            with self._opened(blob):
                pass

    def bring(self, name: RepositoryName, blob: Descriptor) -> How:
        """Let the repository hold the blob until a manifest lists it. Raises ModelRefused, StorageError."""
        if self._is_here(name, blob):
            return How.HERE
        with self._opened(blob) as file, self._shown(blob) as hashed:
            try:
                if self._may_link and self._is_linked(name, blob, file, hashed):
                    return How.LINKED
                copy(self._store, name, blob.digest, file, principal=self._principal, hashed=hashed)
            except DigestInvalid as error:
                raise ModelRefused(f"blob {blob.digest} is damaged or not complete yet: pull it again") from error
            except (UploadBusy, UploadUnknown) as error:
                raise ModelRefused(f"another import is at work at blob {blob.digest}") from error
            except OSError as error:
                raise ModelRefused(f"blob {blob.digest} cannot be read: {error.strerror}") from error
        return How.COPIED

    def _is_linked(self, name: RepositoryName, blob: Descriptor, file: BlobFile, hashed: Callable[[int], None]) -> bool:
        try:
            share(self._store, name, blob.digest, file, principal=self._principal, hashed=hashed)
        except LinkRefused as refused:
            self._may_link = not refused.is_elsewhere  # the next one lies beside it
            return False
        return True

    def _is_here(self, name: RepositoryName, blob: Descriptor) -> bool:
        """Whether the repository holds it, or gets it from another one; our own bytes are not looked at again."""
        size = self._size_here(name, blob)
        if size is None and any(self._is_mounted(source, name, blob) for source in self._holders(blob)):
            size = self._size_here(name, blob)
        if size is not None and size != blob.size:
            raise ModelRefused(f"the manifest says that blob {blob.digest} has {blob.size} bytes; it has {size}")
        return size is not None

    def _size_here(self, name: RepositoryName, blob: Descriptor) -> int | None:
        """Its size in the repository, where it stays then for our manifest."""
        with suppress(BlobUnknown, NameUnknown):
            return self._store.blobs.renew_lease(name, blob.digest, principal=self._principal).size
        return None

    def _holders(self, blob: Descriptor) -> list[RepositoryName]:
        return self._store.blobs.holders(blob.digest)

    def _is_mounted(self, source: RepositoryName, name: RepositoryName, blob: Descriptor) -> bool:
        return self._store.blobs.mount(blob.digest, source=source, into=name, principal=self._principal)

    @contextmanager
    def _opened(self, blob: Descriptor) -> Iterator[BlobFile]:
        """Its file, if that is as long as it should be. Raises ModelRefused."""
        try:
            with self._folder.blob(blob.digest) as file:
                if file.stat.st_size != blob.size:
                    sizes = f"{file.stat.st_size} bytes of {blob.size}"
                    raise ModelRefused(f"blob {blob.digest} is damaged or not complete yet ({sizes}): pull it again")
                yield file
        except FileUnfit as error:
            raise ModelRefused(f"blob {blob.digest} {error}") from error

    @contextmanager
    def _shown(self, blob: Descriptor) -> Iterator[Callable[[int], None]]:
        if blob.size < _SHOWN_BYTES:
            yield lambda position: None
            return
        bar = self._progress.bar(f"reading {blob.digest.encoded[:12]}", blob.size)
        try:
            yield bar.move
        finally:
            bar.close()
