"""What a registry says its blob's parts are: the sums by which a wrong one is found.

Source: the Ollama registry protocol, "client2 pull".
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from registry.remotes.answers import failure
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AnswerInvalid, Stalled
from registry.remotes.http import Reply
from storage.digest import Digest
from storage.errors import DigestInvalid
from storage.manifest import Descriptor

_MOST_CHUNKS: Final = 65_536
_MOST_CHUNK: Final = 16 * 1024 * 1024  # bytes: one is kept in memory until it is known to be right
_MOST_WORD: Final = 200
_SPAN: Final = re.compile(r"(\d{1,18})-(\d{1,18})")
_READY_S: Final = 120.0  # for what needs no time, and the rest as fast as a slow disk is read
_LEAST_RATE: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """The blob's bytes from `start` to before `end`, and their digest."""

    digest: Digest
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def chunks_of(remote: RemoteRepository, blob: Descriptor) -> list[Chunk]:
    """The blob in chunks that follow each other. Raises NotFound where the registry has no sums, RemoteError.

    An address for the chunks that comes with them is not used: they are asked for as every part of a blob is.
    """
    with remote.call("GET", remote.url(f"chunksums/{blob.digest}")) as reply:
        if reply.status != 200:
            raise failure(reply, f"sums of blob {blob.digest}")
        words, chunks, end = _words(reply, _READY_S + blob.size / _LEAST_RATE), list[Chunk](), 0
        for digest in words:
            chunk = _parse(digest, next(words, ""))
            if chunk.start != end or chunk.end > blob.size or len(chunks) >= _MOST_CHUNKS:
                raise AnswerInvalid(f"{remote.home} sent sums that do not cover blob {blob.digest}")
            chunks.append(chunk)
            end = chunk.end
    if end != blob.size:
        raise AnswerInvalid(f"{remote.home} sent sums of {end} bytes of blob {blob.digest}, which has {blob.size}")
    return chunks


def _parse(digest: str, span: str) -> Chunk:
    match = _SPAN.fullmatch(span)
    try:
        if match is None or not 0 <= int(match[2]) - int(match[1]) < _MOST_CHUNK:
            raise AnswerInvalid("the registry sent a sum of no bytes, or of more than can be checked at once")
        return Chunk(Digest.parse(digest), int(match[1]), int(match[2]) + 1)
    except DigestInvalid:
        raise AnswerInvalid("the registry sent a sum that is no digest") from None


def _words(reply: Reply, patience_s: float) -> Iterator[str]:
    """The words of the body as they come. Raises AnswerInvalid, Stalled."""
    rest, deadline = b"", time.monotonic() + patience_s
    for piece in reply.stream():
        *words, rest = re.split(rb"\s+", rest + piece)
        if len(rest) > _MOST_WORD:
            raise AnswerInvalid("the registry sent something that is no list of sums")
        if time.monotonic() > deadline + reply.waited_s:
            raise Stalled("the registry takes too long over its sums")
        yield from (word.decode("latin-1") for word in words if word)
    if rest:
        yield rest.decode("latin-1")
