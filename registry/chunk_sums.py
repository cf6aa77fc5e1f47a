"""Sums of a blob's chunks, for clients that check what they fetch as they fetch it.

Source: the Ollama registry protocol, "client2 pull".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import BoundedSemaphore
from typing import Final, Self

from flask import Response
from flask.typing import ResponseReturnValue

from auth.access import current_gate
from registry.blobs import known_digest
from registry.errors import Busy
from registry.services import store
from registry.urls import base_url
from storage.chunk_sums import Chunk
from storage.reference import RepositoryName

_PLACES: Final = BoundedSemaphore(2)  # blobs that a process reads at once for their sums: it takes a core for each


def list_chunk_sums(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """A line for each chunk in turn, its digest and its first and last byte; the first time, as they are computed.

    Content-Location: where the chunks may be read without credentials. Raises BlobUnknown, NameUnknown, Busy.
    """
    digest = known_digest(reference)
    sums, blob = store().chunk_sums, store().blobs.stat(name, digest)
    location = f"{base_url()}{current_gate().blob_location(name, digest)}"
    headers = {"Content-Location": location, "Docker-Content-Digest": str(digest), "Cache-Control": "private"}
    kept = sums.kept(blob)
    if kept is not None:
        return Response(_lines(kept), headers=headers, content_type="text/plain; charset=utf-8")
    if not _PLACES.acquire(blocking=False):
        raise Busy("sums of other blobs are being computed; try again in a moment")
    lines = _AtWork(_lines(sums.make(name, blob)), _PLACES.release)
    return Response(lines, headers=headers, content_type="text/plain; charset=utf-8")


def _lines(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    for chunk in chunks:
        yield f"{chunk.digest} {chunk.first}-{chunk.last}\n".encode()


class _AtWork:
    """Lines that take work, until they end or the client leaves: the server closes this in any case, even unread."""

    def __init__(self, lines: Iterator[bytes], leave: Callable[[], None]) -> None:
        self._lines, self._leave, self._is_left = lines, leave, False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._lines)

    def close(self) -> None:
        if not self._is_left:
            self._is_left = True
            self._lines = iter(())
            self._leave()
