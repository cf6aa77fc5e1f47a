"""Repositories of mirrors on the wire: what is not here is fetched while it is being served; nothing is pushed to them.

Spec: "Pulling manifests", "Pulling blobs"; RFC 7234, "Warning".
"""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack
from typing import BinaryIO, Final, cast

from flask import Response, request

from auth.access import current_gate
from auth.errors import AccessDenied
from registry import blobs, manifests
from registry.blobs import blob_response, known_digest
from registry.manifests import known_reference
from registry.mirror.arrival import Arrival, ReaderLeft
from registry.mirror.mirroring import upstream_failed
from registry.mirror.mirrors import Mirror
from registry.remotes.errors import NotFound, RemoteError, UpstreamBusy
from registry.services import mirroring, mirrors, store
from runtime.api.disconnect import watcher
from storage.errors import BlobUnknown, NameUnknown, StorageError
from storage.manifest import Descriptor
from storage.reference import RepositoryName

log: Final = logging.getLogger("tonnage.mirror")


def get_manifest(name: RepositoryName, reference: str) -> Response:
    """end-3, GET and HEAD, below a mirror's prefix too. Raises what the plain one raises, and UpstreamFailed."""
    mirror = mirrors().find(name)
    if mirror is None:
        return manifests.get_manifest(name, reference)
    is_gone = watcher(request.environ)
    warning = mirroring().refresh(mirror, name, known_reference(reference), is_gone=is_gone)
    response = manifests.get_manifest(name, reference)
    if warning is not None:
        response.headers["Warning"] = warning
    return response


def get_blob(name: RepositoryName, reference: str) -> Response:
    """end-2, GET and HEAD, below a mirror's prefix too. Raises what the plain one raises, and UpstreamFailed."""
    mirror = mirrors().find(name)
    if mirror is None:
        return blobs.get_blob(name, reference)
    digest = known_digest(reference)
    try:
        response = blobs.get_blob(name, reference, may_lease=False)  # nobody pushes here
    except (BlobUnknown, NameUnknown):
        listed = mirroring().listed(name, digest) if mirror.admits(name) else None
        if listed is None:
            raise
        return _arriving(mirror, name, listed)
    if request.method == "GET":
        mirroring().reads.note(name, digest)
    return response


def check_not_mirrored(name: RepositoryName) -> None:
    """Raises AccessDenied below a mirror's prefix: what is pushed there would pass for the upstream's."""
    mirror = mirrors().find(name)
    if mirror is not None:
        raise AccessDenied(f"{name} mirrors {mirror.upstream}; push to a name outside of {mirror.prefix}")


def _arriving(mirror: Mirror, name: RepositoryName, blob: Descriptor) -> Response:
    """The answer while the blob is on its way; one to HEAD fetches nothing."""
    reader = _Reader(mirror, name, blob)
    try:
        response = blob_response(name, blob.digest, blob.size, reader.open_at, parts=1)
    except BaseException:
        reader.close()
        raise
    response.headers["Cache-Control"] = "no-store"  # its bytes are not verified before the last one
    response.call_on_close(reader.close)
    return response


class _Reader:
    """An arrival as the body of an answer: its failures cut the connection, so that no client takes it for whole."""

    def __init__(self, mirror: Mirror, name: RepositoryName, blob: Descriptor) -> None:
        self._mirror, self._name, self._blob = mirror, name, blob
        self._held, self._place = ExitStack(), ExitStack()
        self._arrival: Arrival | None = None

    def open_at(self, start: int) -> BinaryIO:
        """Wait for the first byte of the blob, wherever the answer begins. Raises UpstreamFailed, BlobUnknown."""
        self._place.enter_context(mirroring().room_to_wait())
        client = current_gate().address()
        job = self._held.enter_context(mirroring().fetch(self._mirror, self._name, self._blob, client=client))
        arrival = Arrival(store(), self._name, self._blob, job, watcher(request.environ))
        self._held.callback(arrival.close)
        try:
            arrival.wait_for_any()
        except NotFound:
            raise BlobUnknown("the upstream does not have it", digest=str(self._blob.digest)) from None
        except ReaderLeft as error:
            raise UpstreamBusy("nobody waited for it") from error
        except RemoteError as error:
            raise upstream_failed(error) from error
        arrival.seek(start)
        self._arrival = arrival
        return cast(BinaryIO, self)

    def read(self, size: int) -> bytes:
        assert self._arrival is not None
        try:
            piece = self._arrival.read(size)
            if self._arrival.is_whole:
                self._place.close()  # it waits for nothing any more
            return piece
        except (RemoteError, StorageError) as error:
            log.warning("the answer with %s of %s is cut: %s", self._blob.digest, self._name, error)
            raise ConnectionResetError(errno.ECONNRESET, "the upstream failed") from error

    def close(self) -> None:
        self._place.close()
        self._held.close()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
