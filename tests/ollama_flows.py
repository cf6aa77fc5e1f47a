"""Pull and push as the ollama client does them, on top of its requests.

Source: the Ollama registry protocol, "classic sequence" of "Pull" and of "Push", "Parts", "Resume files".
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from tests.client import DOCKER_MANIFEST, file_digest
from tests.ollama_client import (
    AGENT,
    MASKED,
    NOT_FOUND,
    PART_AGENT,
    Canceled,
    ClientError,
    LocalStore,
    Part,
    Registry,
    Reply,
    go_json,
    part_size,
)

SMALLEST_PART, LARGEST_PART = 100_000_000, 1_000_000_000
_PARALLEL = 16
_REDIRECTS = 10


class Pull:
    """`ollama pull`. progress is told of every piece of a part, and may raise Canceled: ctrl-C."""

    def __init__(
        self,
        registry: Registry,
        store: LocalStore,
        *,
        smallest_part: int = SMALLEST_PART,
        largest_part: int = LARGEST_PART,
        progress: Callable[[Part], None] = lambda part: None,
    ) -> None:
        self._registry, self._store, self._progress = registry, store, progress
        self._smallest, self._largest = smallest_part, largest_part

    def run(self, name: str) -> None:
        """Raises ClientError, Canceled."""
        repository, _, tag = name.rpartition(":")
        raw = self.manifest(repository, tag)
        manifest = json.loads(raw)
        config = manifest.get("config") or {}
        digests = [layer["digest"] for layer in manifest.get("layers", [])]
        digests += [config["digest"]] if config.get("digest") else []
        fresh = [digest for digest in digests if self._download(repository, digest)]
        for digest in fresh:
            self._verify(digest)
        path = self._store.manifest(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)

    def manifest(self, repository: str, tag: str) -> bytes:
        """Raises ClientError."""
        url = self._registry.path(repository, "manifests", tag)
        try:
            return self._registry.request("GET", url, {"Accept": DOCKER_MANIFEST}).read()
        except ClientError as error:
            raise ClientError(f"pull model manifest: {error}") from error

    def address(self, url: str) -> str:
        """Where the parts of a blob are: the probe's Location. Its body stays unread. Raises ClientError."""
        reply = self._registry.request("GET", url)
        location = reply.headers.get("Location")
        reply.close()
        if reply.status != 200:
            raise ClientError(f"unexpected status code {reply.status}")
        if not location:
            raise ClientError("http: no Location header in response")
        return urljoin(url, location)

    def _download(self, repository: str, digest: str) -> bool:
        """Whether the blob had to be fetched."""
        path, url = self._store.blob(digest), self._registry.path(repository, "blobs", digest)
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}-partial")
        parts = [Part.load(each) for each in sorted(path.parent.glob(f"{partial.name}-*"))] or self._plan(url, partial)
        with partial.open("r+b" if partial.exists() else "w+b") as file:
            file.truncate(sum(part.size for part in parts))
        address = self.address(url)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            waiting = [pool.submit(self._fetch, address, partial, part) for part in parts if part.completed < part.size]
            errors = [each for each in (done.exception() for done in waiting) if each is not None]
        if errors:
            raise next((each for each in errors if isinstance(each, Canceled)), errors[0])
        for part in parts:
            partial.with_name(f"{partial.name}-{part.number}").unlink()
        partial.rename(path)
        return True

    def _plan(self, url: str, partial: Path) -> list[Part]:
        """HEAD tells the size; nothing else does."""
        reply = self._registry.request("HEAD", url)
        reply.close()
        total = int(reply.headers.get("Content-Length", 0))
        size = part_size(total, self._smallest, self._largest)
        parts = [Part(number, at, min(size, total - at)) for number, at in enumerate(range(0, total, size))]
        for part in parts:
            part.save(partial)
        return parts

    def _fetch(self, address: str, partial: Path, part: Part) -> None:
        self._registry.attempts(lambda: self._fetch_once(address, partial, part))

    def _fetch_once(self, address: str, partial: Path, part: Part) -> None:
        """No credentials, another User-Agent, and no look at the status. What came before a cut is kept."""
        wanted = f"bytes={part.offset + part.completed}-{part.offset + part.size - 1}"
        reply = self._follow(address, {"Range": wanted, "User-Agent": PART_AGENT})
        count = 0
        try:
            with partial.open("r+b") as file:
                file.seek(part.offset + part.completed)
                for piece in reply.pieces(part.size - part.completed):
                    file.write(piece)
                    count += len(piece)
                    self._progress(Part(part.number, part.offset, part.size, part.completed + count))
        except (Canceled, ConnectionError, http.client.HTTPException):
            part.completed += count
            part.save(partial)
            raise
        finally:
            reply.close()
        part.completed += count
        part.save(partial)

    def _follow(self, address: str, headers: dict[str, str]) -> Reply:
        """Wherever it leads, with the same headers."""
        for _ in range(_REDIRECTS):
            reply = self._registry.transport.send("GET", address, headers)
            if reply.status != 307:
                return reply
            reply.read()
            address = urljoin(address, reply.headers["Location"])
        raise ClientError("stopped after 10 redirects")

    def _verify(self, digest: str) -> None:
        got = file_digest(self._store.blob(digest))
        if got != digest:
            self._store.blob(digest).unlink()
            raise ClientError(f"digest mismatch, file must be downloaded again: want {digest}, got {got}")


class Push:
    """`ollama push`. before_part is called before each part is sent, with its number."""

    def __init__(
        self,
        registry: Registry,
        store: LocalStore,
        *,
        smallest_part: int = SMALLEST_PART,
        before_part: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._registry, self._store, self._smallest, self._before_part = registry, store, smallest_part, before_part
        self.stored_parts = 0  # sent to where the registry pointed

    def run(self, name: str, target: str = "") -> None:
        """Push the local model `name`, as `target` where that is another name.

        Raises ClientError with what the command prints, Canceled.
        """
        repository, _, tag = (target or name).rpartition(":")
        manifest = json.loads(self._store.manifest(name).read_bytes())
        try:
            for layer in [*manifest["layers"], manifest["config"]]:
                self._push_blob(repository, layer)
            url, headers = self._registry.path(repository, "manifests", tag), {"Content-Type": DOCKER_MANIFEST}
            self._registry.request("PUT", url, headers, go_json(_known_members(manifest))).read()
        except ClientError as error:
            text = str(error).lower()
            if "access denied" in text or "unauthorized" in text:
                raise ClientError(MASKED, str(error)) from error
            raise

    def _push_blob(self, repository: str, layer: dict[str, Any]) -> None:
        try:
            self._registry.request("HEAD", self._registry.path(repository, "blobs", layer["digest"])).close()
        except ClientError as error:
            if str(error) != NOT_FOUND:
                raise
            location = self._open_session(repository, layer)
            if location:
                self._upload(location, layer["digest"])

    def _open_session(self, repository: str, layer: dict[str, Any]) -> str:
        """Where the first part goes; empty where the blob was mounted."""
        url = self._registry.path(repository, "blobs", "uploads", "")
        if layer.get("from"):
            url += "?" + urlencode({"from": source_repository(layer["from"]), "mount": layer["digest"]})
        reply = self._registry.request("POST", url)
        reply.read()
        return "" if reply.status == 201 else _next_location(reply.headers)

    def _upload(self, location: str, digest: str) -> None:
        path = self._store.blob(digest)
        total = path.stat().st_size
        size, sums = part_size(total, self._smallest, LARGEST_PART), []
        following: SimpleQueue[str] = SimpleQueue()
        following.put(location)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            sending = []
            for number, offset in enumerate(range(0, total, size)):
                location = following.get()
                if not location:
                    break
                part = Part(number, offset, min(size, total - offset))
                sending.append(pool.submit(self._send_part, location, path, part, following))
                with path.open("rb") as file:
                    file.seek(part.offset)
                    sums.append(hashlib.md5(file.read(part.size), usedforsecurity=False).digest())
        for sent in sending:
            sent.result()
        location = following.get() if sending else location
        etag = f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"
        parts = urlsplit(location)
        query = sorted([*parse_qsl(parts.query, keep_blank_values=True), ("digest", digest), ("etag", etag)])
        url = parts._replace(query=urlencode(query)).geturl()
        self._registry.attempts(
            lambda: self._registry.request("PUT", url, {"Content-Type": "application/octet-stream"}).read() and None
        )

    def _send_part(self, location: str, path: Path, part: Part, following: SimpleQueue[str]) -> None:
        """Until it is there. Tells where the next one goes as soon as that is known; nowhere, after an error."""
        stores: list[str] = []

        def patch() -> None:
            store, next_one = self._patch(location, path, part)
            following.put(next_one)
            stores.append(store)

        try:
            self._registry.attempts(patch)
        except BaseException:
            following.put("")
            raise
        if stores[0]:
            self._registry.attempts(lambda: self._store_part(stores[0], path, part))

    def _store_part(self, url: str, path: Path, part: Part) -> None:
        """No credentials: the address is one."""
        self.stored_parts += 1
        headers = {"Content-Type": "application/octet-stream", "User-Agent": AGENT}
        with path.open("rb") as file:
            file.seek(part.offset)
            reply = self._registry.transport.send("PUT", url, headers, file, part.size)
        body = reply.read().decode("utf-8", "replace")
        if reply.status >= 300:
            raise ClientError(f"http status {reply.status}: {body}")

    def _patch(self, location: str, path: Path, part: Part) -> tuple[str, str]:
        """Where the part goes instead, if it does, and the address of the next one.

        A new token is fetched on 401, and the attempt has failed all the same.
        """
        self._before_part(part.number)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{part.offset}-{part.offset + part.size - 1}",
            "X-Redirect-Uploads": "1",
        }
        with path.open("rb") as file:
            file.seek(part.offset)
            reply = self._registry.send("PATCH", location, headers, file, part.size)
        body = reply.read().decode("utf-8", "replace")
        if reply.status == 401:
            self._registry.authorize(reply, location)
        if reply.status == 307:
            return reply.headers["Location"], _next_location(reply.headers)
        if reply.status >= 300:
            raise ClientError(f"http status {reply.status}: {body}")
        return "", _next_location(reply.headers)


def _next_location(headers: http.client.HTTPMessage) -> str:
    return headers.get("Docker-Upload-Location") or headers.get("Location") or ""


def _known_members(manifest: dict[str, Any]) -> dict[str, Any]:
    """What is left of a manifest that was read and written again."""
    names = ("mediaType", "digest", "size", "from", "name")

    def known(layer: dict[str, Any]) -> dict[str, Any]:
        return {name: layer[name] for name in names if layer.get(name)} | {"size": layer["size"]}

    about = {"schemaVersion": manifest["schemaVersion"], "mediaType": manifest["mediaType"]}
    return {**about, "config": known(manifest["config"]), "layers": [known(layer) for layer in manifest["layers"]]}


def source_repository(source: str) -> str:
    """The repository of a name, or of a file's path, as the client parses it: without host and tag."""
    folders, _, last = source.rpartition("/")
    return f"{folders.rpartition('/')[2] or 'library'}/{last.partition(':')[0]}"
