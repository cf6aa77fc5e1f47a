"""One repository of one remote registry: its manifests and blobs, with typed errors.

Spec: "Pulling manifests", "Pulling blobs", "Pushing manifests".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Final, Self

from registry.remotes.answers import failure
from registry.remotes.credentials import CATALOG_SCOPE, Authenticator
from registry.remotes.errors import AnswerInvalid, DigestMismatch, RangeRefused
from registry.remotes.http import Body, Origin, Outbound, Reply, admit_hop
from registry.remotes.places import RemotePath
from storage.digest import Digest
from storage.errors import DigestInvalid
from storage.reference import RepositoryName, Tag

MAX_MANIFEST: Final = 4 * 1024 * 1024
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_ACCEPT: Final = ", ".join(
    (
        DOCKER_MANIFEST,
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest's exact bytes, and the digest computed from them."""

    raw: bytes
    digest: Digest
    media_type: str


class BlobBody:
    """A blob's bytes from `start` to before `end`, on the wire. Use as a context manager."""

    def __init__(self, reply: Reply, start: int, end: int) -> None:
        self._reply = reply
        self.start, self.end = start, end

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waited_s(self) -> float:
        """How long our own limit has held it back."""
        return self._reply.waited_s

    def close(self) -> None:
        self._reply.close()

    def __iter__(self) -> Iterator[bytes]:
        return self._reply.stream()


class RemoteRepository:
    """`repository` at the registry `server` (a URL without a path). With `is_pushing`, tokens for writing are asked."""

    def __init__(
        self, auth: Authenticator, server: str, repository: RepositoryName | RemotePath, *, is_pushing: bool = False
    ) -> None:
        self._auth = auth
        self.home = Origin.of(server)
        self.repository = repository
        self._scope = f"repository:{repository}:{'pull,push' if is_pushing else 'pull'}"

    def over(self, http: Outbound) -> Self:
        """The same repository through another client, whose connections end with that one."""
        twin = copy(self)
        twin._auth = self._auth.over(http)
        return twin

    def branch(self) -> tuple[Self, Outbound]:
        """The same repository through connections of its own, and the client that has them."""
        twin = copy(self)
        twin._auth, http = self._auth.branch()
        return twin, http

    def catalog(self) -> Self:
        """The same registry, to be asked for the list of its repositories."""
        twin = copy(self)
        twin._scope = CATALOG_SCOPE
        return twin

    def url(self, path: str) -> str:
        return f"{self.home}/v2/{self.repository}/{path}"

    def call(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        length: int | None = None,
        read_s: float | None = None,
        follow: bool = True,
    ) -> Reply:
        """A request with this repository's credentials, which go nowhere but home."""
        return self._auth.request(
            method,
            url,
            home=self.home,
            scope=self._scope,
            headers=headers,
            body=body,
            length=length,
            read_s=read_s,
            follow=follow,
        )

    def manifest(self, reference: Tag | Digest) -> RemoteManifest:
        """Raises NotFound, DigestMismatch when the bytes are not those of a digest asked for or announced."""
        with self.call("GET", self.url(f"manifests/{reference}"), headers={"Accept": _ACCEPT}) as reply:
            if reply.status != 200:
                raise failure(reply, f"{self.repository}:{reference}")
            raw = reply.read(MAX_MANIFEST)
            announced = reply.header("Docker-Content-Digest")
            media_type = reply.header("Content-Type").partition(";")[0].strip()
        for promised in filter(None, (str(reference) if isinstance(reference, Digest) else "", announced)):
            try:
                is_same = Digest.of(raw, promised.partition(":")[0]) == Digest.parse(promised)
            except DigestInvalid:
                continue  # an algorithm that we cannot check, announced for a tag: it promises us nothing
            if not is_same:
                raise DigestMismatch(f"the manifest that {self.home} sent for {reference} is not {promised}")
        return RemoteManifest(raw, Digest.of(raw), media_type)

    def manifest_digest(self, tag: Tag) -> Digest | None:
        """What the tag names, without its bytes; None where the registry does not tell. Raises NotFound."""
        with self.call("HEAD", self.url(f"manifests/{tag}"), headers={"Accept": _ACCEPT}) as reply:
            if reply.status != 200:
                raise failure(reply, f"{self.repository}:{tag}")
            try:
                return Digest.parse(reply.header("Docker-Content-Digest"))
            except DigestInvalid:
                return None

    def put_manifest(self, reference: Tag | Digest, raw: bytes, media_type: str) -> None:
        """Spec: "Pushing manifests". Raises Forbidden, RequestRefused."""
        url = self.url(f"manifests/{reference}")
        with self.call("PUT", url, headers={"Content-Type": media_type}, body=raw) as reply:
            if reply.status not in {200, 201, 202, 204}:
                raise failure(reply, f"{self.repository}:{reference}")

    def blob_size(self, digest: Digest) -> int | None:
        """The blob's size, None if the repository does not have it. Spec: "Checking if content exists"."""
        with self.call("HEAD", self.url(f"blobs/{digest}")) as reply:
            if reply.status == 404:
                return None
            if reply.status != 200 or reply.length is None:
                raise failure(reply, f"blob {digest}")
            return reply.length

    def open_blob(self, digest: Digest, size: int, *, start: int = 0, end: int | None = None) -> BlobBody:
        """The blob from `start` to before `end`, its own end if that is None.

        The server may send less of it, or insist on sending the whole: look where the body begins and ends. Raises
        NotFound, RangeRefused, AnswerInvalid when what is sent cannot be these bytes.
        """
        last = "" if end is None else str(end - 1)
        headers = {"Range": f"bytes={start}-{last}"} if start or last else {}
        reply = self.call("GET", self.url(f"blobs/{digest}"), headers=headers)
        try:
            # Ollama's probe answer: an empty 200 that only says where the bytes are.
            if reply.status == 200 and reply.length == 0 and size and reply.header("Location"):
                target = admit_hop(reply.url, reply.header("Location"))
                reply.close()
                reply = self.call("GET", target, headers=headers)
            return BlobBody(reply, *self._span(reply, digest, size, range(start, size if end is None else end)))
        except BaseException:
            reply.close()
            raise

    def _span(self, reply: Reply, digest: Digest, size: int, asked: range) -> tuple[int, int]:
        """Where the body begins and ends. Raises as `open_blob`."""
        there = Origin.of(reply.url)
        if reply.status not in {200, 206}:
            refused = failure(reply, f"blob {digest}")
            refused.is_elsewhere = there != self.home
            raise refused
        if reply.header("Content-Encoding") not in {"", "identity"}:
            raise AnswerInvalid(f"{there} sends blob {digest} compressed, which was not asked for")
        if reply.status == 200:
            if reply.length not in {None, size}:
                raise AnswerInvalid(f"blob {digest} has {reply.length} bytes at {there}, not {size}")
            return 0, size
        match = _CONTENT_RANGE.fullmatch(reply.header("Content-Range").strip())
        if match is None or int(match[1]) != asked.start or int(match[2]) not in asked:
            raise AnswerInvalid(f"{there} sends another range of blob {digest} than was asked for")
        if match[3] not in {"*", str(size)}:
            raise RangeRefused(f"blob {digest} has {match[3]} bytes at {there}, not {size}")
        return asked.start, int(match[2]) + 1
