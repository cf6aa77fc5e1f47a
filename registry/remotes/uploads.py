"""An upload session at a remote registry, and the note of it that survives this process.

Spec: "Pushing a blob in chunks"; the Ollama registry protocol, "PATCH".
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

from registry.remotes.answers import failure, session_offset
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AddressExpired, AnswerInvalid, NotFound, RedirectRefused, RequestRefused, ServerBusy
from registry.remotes.http import MAX_REDIRECTS, Origin, Reply, admit_hop
from storage.digest import Digest

PART_BYTES: Final = 64 * 1024 * 1024
_MAX_PART: Final = 1024 * 1024 * 1024
_COMMIT_S: Final = 600.0  # a registry may hash the whole blob before it answers the last request
_NOTE_BYTES: Final = 32 * 1024
_NOTE_LIFE_S: Final = 7 * 86400  # registries forget idle sessions sooner
_OCTETS: Final = "application/octet-stream"
_REPR_DIGEST: Final = re.compile(r"(?:.*,)?\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,.*)?")

Part = Callable[[int, int], Iterator[bytes]]  # (start, length) → those bytes of the blob


@dataclass(slots=True)
class UploadSession:
    """Where the next part goes, and how many bytes are there; their sha256, where the registry tells it.

    is_resumed: it was there before, and another process may be writing to it.
    """

    url: str
    offset: int = 0
    part_bytes: int = PART_BYTES
    digest: Digest | None = None
    is_resumed: bool = False


def start_upload(remote: RemoteRepository, digest: Digest, *, mount_from: str = "") -> UploadSession | None:
    """A new session; None when the registry has the blob, or takes it from its repository `mount_from`.

    Spec: "Mounting a blob from another repository".
    """
    mount = f"?{urlencode({'from': mount_from, 'mount': str(digest)})}" if mount_from else ""
    url = remote.url(f"blobs/uploads/{mount}")
    with remote.call("POST", url, body=b"", headers={"Content-Type": _OCTETS}) as reply:
        if reply.status == 201:
            return None
        if reply.status != 202:
            raise failure(reply, f"an upload to {remote.repository}")
        return UploadSession(_next_url(reply, None), 0, _part_bytes(reply), _digest_there(reply))


def resume_upload(remote: RemoteRepository, url: str) -> UploadSession | None:
    """The session at `url` with the offset it has reached; None when the registry does not know it any more.

    A bare `Range: 0-0` may mean one byte: a new session is the safe answer. An exact 0 keeps the session, for the
    registry may not have noticed yet that the writer of the first part is gone, and still hold its bytes.
    """
    with remote.call("GET", url) as reply:
        if reply.status == 204:
            offset = session_offset(reply)
            is_exact = bool(offset) or (offset == 0 and bool(reply.header("X-Upload-Offset")))
            if not is_exact:
                return None
            there = _digest_there(reply)
            return UploadSession(_next_url(reply, url), offset or 0, _part_bytes(reply), there, is_resumed=True)
        error = failure(reply, "the upload begun earlier")
    if isinstance(error, NotFound | RequestRefused):  # some registries have no such request: begin anew
        return None
    raise error


def send_part(
    remote: RemoteRepository, session: UploadSession, length: int, part: Part, *, is_again: bool = False
) -> None:
    """Append `length` bytes from the session's offset on; moves the session to where the registry says it stands.

    is_again: in place of the bytes that the last part left there. Raises RangeRefused with the registry's own offset
    when it differs from ours.
    """
    start = session.offset
    headers = {"Content-Type": _OCTETS, "Content-Range": f"{start}-{start + length - 1}"}
    if is_again:
        headers["X-Upload-Offset"] = str(start)

    def body() -> Iterator[bytes]:
        return part(start, length)

    for _ in range(MAX_REDIRECTS):
        with remote.call("PATCH", session.url, headers=headers, body=body, length=length, follow=False) as reply:
            if reply.status not in {307, 308}:
                _take_reply(remote, session, reply, length)
                return
            if not reply.header("Location"):
                raise AnswerInvalid(f"{remote.home} redirects an upload without a Location")
            target = admit_hop(reply.url, reply.header("Location"))
            following = reply.header("Docker-Upload-Location")
        if following:
            _store_part(remote, target, body, length)
            session.url, session.offset = admit_hop(session.url, following), start + length
            session.digest = None
            return
        session.url = target  # the session itself has moved: the same request is made there
    raise RedirectRefused(f"{remote.home} redirects an upload more than {MAX_REDIRECTS} times")


def complete_upload(remote: RemoteRepository, session: UploadSession, digest: Digest) -> None:
    """Commit. Raises RequestRefused with code DIGEST_INVALID when the registry holds other bytes."""
    joint = "&" if urlsplit(session.url).query else "?"
    url = f"{session.url}{joint}{urlencode({'digest': str(digest)})}"
    with remote.call("PUT", url, headers={"Content-Type": _OCTETS}, body=b"", read_s=_COMMIT_S) as reply:
        if reply.status not in {200, 201, 202, 204}:
            raise failure(reply, f"blob {digest}")


def cancel_upload(remote: RemoteRepository, session: UploadSession) -> None:
    """Give the session up, where it lies at the registry itself; whether that cares is its own affair."""
    if Origin.of(session.url) == remote.home:
        with remote.call("DELETE", session.url):
            pass


def _part_bytes(reply: Reply) -> int:
    """How long parts are to be. Raises AnswerInvalid."""
    least = reply.header("OCI-Chunk-Min-Length")
    part = max(PART_BYTES, int(least)) if least.isascii() and least.isdigit() and len(least) <= 12 else PART_BYTES
    if part > _MAX_PART:
        where = Origin.of(reply.url)
        raise AnswerInvalid(f"{where} wants parts of {part} bytes, more than can be sent again after a cut")
    return part


def _take_reply(remote: RemoteRepository, session: UploadSession, reply: Reply, length: int) -> None:
    start, end = session.offset, session.offset + length
    if reply.status not in {200, 201, 202, 204}:
        raise failure(reply, f"bytes {start} to {end - 1} of the upload")
    reached = session_offset(reply)
    if end == 1 and reached == 0:
        reached = None  # `Range: 0-0`, which here means one byte
    if reached is not None and not start <= reached <= end:
        raise AnswerInvalid(f"{remote.home} says it holds {reached} bytes of an upload of which it got {end}")
    session.url = _next_url(reply, session.url)
    session.offset = end if reached is None else reached
    session.digest = _digest_there(reply)


def _store_part(remote: RemoteRepository, url: str, body: Callable[[], Iterator[bytes]], length: int) -> None:
    """The registry keeps its bytes in another store and has given us an address there for this part alone.

    Such addresses expire, in words that no two stores share: whatever it refuses, the registry is asked once more.
    """
    with remote.call("PUT", url, headers={"Content-Type": _OCTETS}, body=body, length=length, follow=False) as reply:
        if reply.status not in {200, 201, 202, 204}:
            error = failure(reply, "a part of the upload, sent to the store that the registry named")
            raise error if isinstance(error, ServerBusy) else AddressExpired(str(error)) from error


def _digest_there(reply: Reply) -> Digest | None:
    """What `Repr-Digest` (RFC 9530) says of the bytes that the session holds.

    Beside an exact offset alone: else it may be of this answer's own, empty body.
    """
    match = _REPR_DIGEST.fullmatch(reply.header("Repr-Digest")) if reply.header("X-Upload-Offset") else None
    return Digest("sha256", b64decode(match[1]).hex()) if match else None


def _next_url(reply: Reply, current: str | None) -> str:
    location = reply.header("Docker-Upload-Location") or reply.header("Location")
    if not location and current is None:
        raise AnswerInvalid(f"{Origin.of(reply.url)} opened an upload without a Location")
    return admit_hop(reply.url, location) if location else str(current)


class Notes(Protocol):
    """What is remembered of uploads that may be taken up again."""

    def load(self, remote: RemoteRepository, digest: Digest) -> str | None:
        """The noted session URL, None when there is none to go on with."""

    def save(self, remote: RemoteRepository, digest: Digest, url: str) -> None: ...

    def forget(self, remote: RemoteRepository, digest: Digest) -> None: ...


class UploadNotes:
    """Session URLs on disk, one small file an upload, so that a killed client goes on where it stood.

    Session URLs may carry rights: the files are for their owner only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, remote: RemoteRepository, digest: Digest) -> str | None:
        """The noted session URL, None when there is no fresh one."""
        try:
            with self._path(remote, digest).open("rb") as file:
                note = json.loads(file.read(_NOTE_BYTES))
            url, at = note["url"], float(note["at"])
            Origin.of(url)
        except Exception:  # absent, cut short or edited: a note is a hint, the server has the truth
            return None
        return str(url) if 0 <= time.time() - at < _NOTE_LIFE_S else None

    def save(self, remote: RemoteRepository, digest: Digest, url: str) -> None:
        """Replaces the note whole, so that a kill leaves the old one or the new one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = {"server": str(remote.home), "repository": str(remote.repository), "digest": str(digest), "url": url}
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".note-")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({**note, "at": time.time()}, file)
            Path(name).replace(self._path(remote, digest))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def forget(self, remote: RemoteRepository, digest: Digest) -> None:
        self._path(remote, digest).unlink(missing_ok=True)

    def _path(self, remote: RemoteRepository, digest: Digest) -> Path:
        key = f"{remote.home}\n{remote.repository}\n{digest}"
        return self._folder / f"{sha256(key.encode()).hexdigest()}.json"
