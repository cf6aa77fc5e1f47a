"""Pull a model's weights into a file: resumed after cuts, checked before it gets its name."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO, Final

from registry.remotes.endpoint import RemoteManifest, RemoteRepository
from registry.remotes.errors import (
    AnswerInvalid,
    ConnectionCut,
    DigestMismatch,
    LocalFileUnfit,
    RangeRefused,
    RemoteError,
)
from registry.remotes.partial_file import held, share
from registry.remotes.progress import Bar, Progress
from registry.remotes.retry import Retry
from runtime.errors import ModelUnusable
from runtime.layers import Layer, parse_layers
from storage.digest import Digest
from storage.durable import sync_folder
from storage.errors import DigestInvalid
from storage.reference import Tag

_READ_BYTES: Final = 1024 * 1024
_MAX_CHILDREN: Final = 1000
_MAX_RESTARTS: Final = 2


class Pull:
    """Takes models from `remote` into files."""

    def __init__(self, remote: RemoteRepository, progress: Progress, *, first_pause_s: float = 0.5) -> None:
        self._remote = remote
        self._progress = progress
        self._first_pause_s = first_pause_s

    def weights_layer(self, tag: Tag) -> Layer:
        """The layer of `tag` that is one GGUF file. Raises RemoteError."""
        retry = self._retry()
        while True:
            try:
                return self._weights_layer(tag)
            except RemoteError as error:
                retry.pause(error)

    def fetch(self, layer: Layer, target: Path) -> None:
        """Write the layer to `target`, which exists only once all its bytes are there and have the layer's digest.

        What has come already is kept beside it under a `.partial` name, and used the next time.
        """
        partial = target.with_name(f"{target.name}.{layer.digest.encoded[:12]}.partial")
        with held(partial, "pull", mode=0o644) as file:
            transfer = _Transfer(self._remote, layer, file, self._retry())
            transfer.rehash(self._progress)
            bar = self._progress.bar(f"pulling {layer.digest.encoded[:12]}", layer.size)
            try:
                transfer.complete(bar)
                os.fsync(file.fileno())
            except DigestMismatch:
                partial.unlink(missing_ok=True)  # nothing in it can be trusted
                raise
            except OSError as error:
                raise LocalFileUnfit(f"cannot write {partial}: {error.strerror}; what has come is kept") from error
            finally:
                bar.close()
            partial.replace(target)
            share(file.fileno())  # not before: as a partial file it would be refused then
        sync_folder(target.parent)

    def _weights_layer(self, tag: Tag) -> Layer:
        manifest = self._remote.manifest(tag)
        for _ in range(2):
            child = model_child(manifest)
            if child is None:
                break
            manifest = self._remote.manifest(child)
        try:
            layers = parse_layers(manifest.raw)
            found = layers.weights(self._first_bytes)
        except ModelUnusable as error:
            raise AnswerInvalid(f"{self._remote.repository}:{tag} at {self._remote.home}: {error}") from error
        if not found:
            raise AnswerInvalid(f"{self._remote.repository}:{tag} at {self._remote.home} holds no GGUF file")
        if len(found) > 1:
            raise AnswerInvalid(
                f"{self._remote.repository}:{tag} is split into {len(found)} GGUF files; pull it by an OCI client"
            )
        if found[0].size < 0:
            raise AnswerInvalid(f"{self._remote.repository}:{tag} lists a layer of negative size")
        return found[0]

    def _first_bytes(self, layer: Layer) -> bytes:
        with self._remote.open_blob(layer.digest, layer.size) as body:
            return next(iter(body), b"")[:4]

    def _retry(self) -> Retry:
        return Retry(first_s=self._first_pause_s, tell=self._progress.say)


class _Transfer:
    """A blob on its way into `file`; the hasher has seen exactly its first `position` bytes."""

    def __init__(self, remote: RemoteRepository, layer: Layer, file: BinaryIO, retry: Retry) -> None:
        self.remote = remote
        self.layer = layer
        self.file = file
        self.retry = retry
        self.restart()

    def rehash(self, progress: Progress) -> None:
        """Take over what an earlier pull left; the file's own bytes decide, not what was noted about them."""
        size = os.fstat(self.file.fileno()).st_size
        if not 0 < size <= self.layer.size:
            return
        bar = progress.bar("checking what is here", size)
        self.file.seek(0)
        while piece := self.file.read(_READ_BYTES):
            self._hasher.update(piece)
            self.position += len(piece)
            bar.move(self.position)
        bar.close()

    def restart(self) -> None:
        self._hasher = hashlib.new(self.layer.digest.algorithm)
        self.position = 0

    def complete(self, bar: Bar) -> None:
        """Fetch what is missing and compare digests. Raises DigestMismatch, and what the last attempt raised."""
        has_old_bytes = self.position > 0
        while True:
            self._fetch(bar)
            if self._hasher.hexdigest() == self.layer.digest.encoded:
                return
            if not has_old_bytes:
                raise DigestMismatch(
                    f"{self.remote.home} sent other bytes than {self.layer.digest}; nothing was kept of them"
                )
            has_old_bytes = False  # bytes of an earlier pull may be to blame: once more, without them
            self.restart()

    def _fetch(self, bar: Bar) -> None:
        restarts = 0
        while True:
            bar.move(self.position)
            self.retry.reached(self.position)
            if self.position == self.layer.size:
                self.file.truncate(self.position)
                return
            try:
                self._attempt(bar)
                if self.position < self.layer.size:  # a shorter range than asked for, or an end without a length
                    raise ConnectionCut(f"{self.remote.home} ended blob {self.layer.digest} too soon")
            except RangeRefused:
                restarts += 1
                if restarts >= _MAX_RESTARTS or not self.position:
                    raise
                self.restart()
            except RemoteError as error:
                self.retry.pause(error)

    def _attempt(self, bar: Bar) -> None:
        with self.remote.open_blob(self.layer.digest, self.layer.size, start=self.position) as body:
            if body.start != self.position:  # the whole blob again: the server knows no ranges
                self.restart()
            self.file.seek(self.position)
            self.file.truncate()
            for piece in body:
                if self.position + len(piece) > self.layer.size:
                    raise AnswerInvalid(
                        f"{self.remote.home} sends more than the {self.layer.size} bytes of {self.layer.digest}"
                    )
                self._write(piece)
                self._hasher.update(piece)
                self.position += len(piece)
                bar.move(self.position)

    def _write(self, piece: bytes) -> None:
        """All of it: an unbuffered file may take less at a time, and a buffered one would fail again when closed."""
        view = memoryview(piece)
        while view:
            view = view[self.file.write(view) :]


def model_child(manifest: RemoteManifest) -> Digest | None:
    """The manifest that an index offers for a model: one without a platform, else the first; None for no index.

    Raises AnswerInvalid for an index that lists nothing.
    """
    try:
        body = json.loads(manifest.raw)
        children = body.get("manifests") if isinstance(body, dict) else None
        if not isinstance(children, list):
            return None
        children = [child for child in children[:_MAX_CHILDREN] if isinstance(child, dict)]
        chosen = next((child for child in children if not child.get("platform")), children[0])
        return Digest.parse(str(chosen["digest"]))
    except (ValueError, KeyError, IndexError, RecursionError, DigestInvalid):
        raise AnswerInvalid("the registry sent a manifest or an index that cannot be read") from None


def holds(path: Path, layer: Layer) -> bool:
    """Whether `path` is a file with exactly the layer's bytes."""
    if not path.is_file() or path.stat().st_size != layer.size:
        return False
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, layer.digest.algorithm).hexdigest() == layer.digest.encoded
