"""Push a model: every blob that the registry lacks, then the manifest that makes them a model."""

from __future__ import annotations

import time
from collections.abc import Callable

from registry.remotes.blob_push import BlobPush, Source
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import RemoteError
from registry.remotes.package import Package
from registry.remotes.progress import Progress
from registry.remotes.retry import Retry
from registry.remotes.uploads import Notes
from storage.digest import Digest
from storage.reference import Tag


class Push:
    """One push to `remote`, taken up again after cuts and, through `notes`, after the end of this process."""

    def __init__(
        self,
        remote: RemoteRepository,
        notes: Notes,
        progress: Progress,
        *,
        first_pause_s: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._remote = remote
        self._notes = notes
        self._progress = progress
        self._first_pause_s = first_pause_s

    def push(self, package: Package, tag: Tag) -> None:
        """Raises RemoteError; a later push goes on where this one stopped."""
        for blob in (*package.layers, package.config):
            self.push_blob(blob)
        self.push_manifest(tag, package.manifest, package.media_type)

    def push_manifest(self, reference: Tag | Digest, raw: bytes, media_type: str) -> None:
        """The last step: what makes the blobs a model. A tag names it; by digest it is part of an index."""
        retry = self._retry()
        while True:
            try:
                self._remote.put_manifest(reference, raw, media_type)
                return
            except RemoteError as error:
                retry.pause(error)

    def push_blob(self, blob: Source) -> None:
        """Bring one blob over. Raises RemoteError."""
        bar = self._progress.bar(f"pushing {blob.digest.encoded[:12]}", blob.size)
        try:
            BlobPush(self._remote, self._notes, blob, bar, self._retry).run()
            bar.move(blob.size)
        finally:
            bar.close()

    def _retry(self) -> Retry:
        return Retry(first_s=self._first_pause_s, sleep=self._sleep, tell=self._progress.say)
