"""Bytes to push, and every way to push them: whole, in pieces over several nodes, streamed, mounted, broken off."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from benchmarks.soak_nodes_client import PATIENCE_S, GaveUp, Spray, Unanswered, path_of

_KIB, _MIB = 2**10, 2**20
_SIZES: Final = (  # from, to, how many of a hundred; parts of a multipart upload are of 16 MiB
    (4 * _KIB, 64 * _KIB, 62),
    (64 * _KIB, 2 * _MIB, 26),
    (2 * _MIB, 10 * _MIB, 7),
    (15 * _MIB, 24 * _MIB, 4),
    (33 * _MIB, 40 * _MIB, 1),
)
_CHUNKS_MOST: Final = 6
_STREAM_BYTES: Final = 64 * _KIB
_OFFSET: Final = "x-upload-offset"


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that can be made again at any time from their seed."""

    seed: str
    size: int
    digest: str

    @classmethod
    def make(cls, seed: str) -> Content:
        draw = random.Random(seed)
        [(least, most, _)] = draw.choices(_SIZES, [share for _, _, share in _SIZES])
        size = draw.randint(least, most)
        return cls(seed, size, f"sha256:{hashlib.sha256(_bytes(seed, size)).hexdigest()}")

    @property
    def data(self) -> bytes:
        return _bytes(self.seed, self.size)


@lru_cache(maxsize=24)
def _bytes(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Pusher:
    """One client's pushes into any repository."""

    def __init__(self, spray: Spray) -> None:
        self._spray, self._draw, self._tally = spray, spray.draw, spray.tally

    def bring(self, repository: str, content: Content, *, others: list[str]) -> None:
        """Return when a node has said that the blob is in the repository. Raises GaveUp."""
        deadline = time.monotonic() + PATIENCE_S
        if self._draw.random() < 0.4 and self._is_there(repository, content):
            self._tally.add("blob, skipped after HEAD")
            return
        if others and self._draw.random() < 0.3 and self._mount(repository, content, self._draw.choice(others)):
            self._tally.add("blob, mounted")
            return
        way = self._draw.choice((self._whole, self._put, self._in_chunks, self._streamed, self._broken))
        while time.monotonic() < deadline:
            try:
                if way(repository, content):
                    self._tally.add(f"blob, {way.__name__.strip('_').replace('_', ' ')}")
                    return
            except Unanswered:
                pass
            self._spray.pause()
        raise GaveUp(f"push of {content.digest} ({content.size}) into {repository}")

    def begin(self, repository: str, content: Content, share: float) -> str:
        """A session that has some of the bytes; its path. Raises GaveUp, Unanswered."""
        session = self._open(repository)
        self._spray.once("PATCH", session, content.data[: int(content.size * share)])
        return session

    def _is_there(self, repository: str, content: Content) -> bool:
        return self._spray.ask("HEAD", f"/v2/{repository}/blobs/{content.digest}").status == 200

    def _mount(self, repository: str, content: Content, source: str) -> bool:
        query = f"mount={content.digest}&from={source}"
        answer = self._spray.ask("POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")
        return answer.status == 201

    def _open(self, repository: str) -> str:
        answer = self._spray.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        if answer.status != 202:
            raise GaveUp(f"no session in {repository}: {answer.status} {answer.body[:200]!r}")
        return path_of(answer.headers["location"])

    def _whole(self, repository: str, content: Content) -> bool:
        """POST with the digest and all of the bytes."""
        answer = self._spray.once("POST", f"/v2/{repository}/blobs/uploads/?digest={content.digest}", content.data)
        return self._is_created(answer.status, answer.body, "POST")

    def _put(self, repository: str, content: Content) -> bool:
        return self._finish(self._open(repository), content, 0)

    def _in_chunks(self, repository: str, content: Content) -> bool:
        session, offset = self._open(repository), 0
        for size in _cuts(self._draw, content.size):
            reached = self._append(session, content.data[offset : offset + size], offset)
            if reached is None:
                return False
            offset = reached
        return self._finish(session, content, offset)

    def _streamed(self, repository: str, content: Content) -> bool:
        """One PATCH whose length nobody announced."""
        session = self._open(repository)
        with contextlib.suppress(Unanswered):
            self._spray.once("PATCH", session, _stream(content.data))
        offset = self._offset(session)
        return offset is not None and self._finish(session, content, offset)

    def _broken(self, repository: str, content: Content) -> bool:
        """A client that hung up in the middle, and goes on at another node."""
        session = self._open(repository)
        self._spray.break_off("PATCH", session, content.data, self._draw.random())
        offset = self._offset(session)
        return offset is not None and self._finish(session, content, offset)

    def _append(self, session: str, chunk: bytes, offset: int) -> int | None:
        """The offset reached, by this chunk or by whatever came of it; None where the session is gone."""
        try:
            answer = self._spray.once("PATCH", session, chunk, _range(offset, chunk))
        except Unanswered:
            return self._offset(session)
        if answer.status in (202, 416) and _OFFSET in answer.headers:
            return int(answer.headers[_OFFSET])
        return self._offset(session) if answer.status in (416, 503) else self._gone(answer.status, answer.body)

    def _offset(self, session: str) -> int | None:
        """Where the session stands; None where it is gone."""
        answer = self._spray.ask("GET", session)
        return int(answer.headers[_OFFSET]) if answer.status == 204 else self._gone(answer.status, answer.body)

    def _finish(self, session: str, content: Content, offset: int) -> bool:
        """PUT what is left, from wherever the session stands, until it is a blob; False where the session is gone."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            rest = content.data[offset:]
            try:
                answer = self._spray.once("PUT", f"{session}?digest={content.digest}", rest, _range(offset, rest))
                if answer.status not in (416, 503):
                    return self._is_created(answer.status, answer.body, "PUT")
            except Unanswered:
                pass
            self._spray.pause()
            if self._is_there(session.partition("/blobs/uploads/")[0].removeprefix("/v2/"), content):
                self._tally.add("blob, there though its PUT had no answer")
                return True
            reached = self._offset(session)
            if reached is None:
                return False
            offset = reached
        raise GaveUp(f"PUT of {session}")

    def _is_created(self, status: int, body: bytes, method: str) -> bool:
        """Every body says where it begins, so a digest that is refused is the node's fault: it mixed bytes up."""
        if status != 201:
            self._tally.add(f"push begun again: {method} {status}")
            if status not in (404, 503):
                self._tally.wonder(f"{method} of a blob: {status} {body[:300]!r}")
        return status == 201

    def _gone(self, status: int, body: bytes) -> None:
        self._tally.add(f"push begun again: session {status}")
        if status != 404:
            self._tally.wonder(f"a session: {status} {body[:300]!r}")


def _range(offset: int, data: bytes) -> dict[str, str]:
    return {"Content-Range": f"{offset}-{offset + len(data) - 1}"} if data else {}


def _cuts(draw: random.Random, size: int) -> list[int]:
    """Sizes of some chunks; what is left goes with the closing PUT."""
    marks = sorted(draw.randint(1, size) for _ in range(draw.randint(1, _CHUNKS_MOST)))
    return [end - start for start, end in zip([0, *marks], marks, strict=False) if end > start]


def _stream(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _STREAM_BYTES] for start in range(0, len(data), _STREAM_BYTES))
