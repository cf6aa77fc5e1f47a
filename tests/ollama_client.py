"""The ollama client's side of the registry protocol, request for request, with its quirks, over real sockets.

It is what the client is for a server: the same requests in the same order with the same headers, and the same words
where it gives up. Redirects are followed where our server may send them: of parts; one elsewhere ends the transfer.
Source: the Ollama registry protocol, "Pull", "Push", "Authentication".
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit

from auth.keys import PrivateKey
from tests.client import CONFIG_TYPE, DOCKER_MANIFEST

AGENT = "ollama/0.33.0 (amd64 linux) Go/go1.26.0"
PART_AGENT = "Go-http-client/1.1"
NOT_FOUND = "file does not exist"
REFUSED = "unauthorized: access denied"
MASKED = "you are not authorized to push to this namespace, create the model under a namespace you own"
_BUFFER_BYTES = 32 * 2**10  # of Go's io.Copy
_TRIES = 6


class ClientError(Exception):
    """What the client prints. `cause` is what it knew before its CLI put a sentence of its own in place of it."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause or message


class Canceled(Exception):
    """Ctrl-C."""


@dataclass(frozen=True)
class Sent:
    """A request as it went out, and how it was answered. headers: in their order on the wire."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    status: int

    @property
    def header(self) -> dict[str, str]:
        return dict(self.headers)


class Reply:
    """An answer whose body may stay unread; that costs the connection, as in Go."""

    def __init__(self, response: http.client.HTTPResponse, give_back: Callable[[], None], close: Callable[[], None]):
        self.status, self.headers = response.status, response.headers
        self._response, self._give_back, self._close = response, give_back, close

    def read(self) -> bytes:
        data = self._response.read()
        self._give_back()
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def pieces(self, size: int) -> Iterator[bytes]:
        """At most `size` bytes. Raises EOFError where the body ends before, ConnectionError where it was cut."""
        while size > 0:
            piece = self._response.read(min(_BUFFER_BYTES, size))
            if not piece:
                raise ConnectionError("unexpected EOF") if self._response.length else EOFError("EOF")
            size -= len(piece)
            yield piece

    def close(self) -> None:
        if self._response.length == 0:
            self._response.read()
            self._give_back()
        else:
            self._close()


class Transport:
    """Requests as Go writes them, on connections that are kept; `sent` is what went out."""

    def __init__(self, dial: Mapping[str, str] | None = None) -> None:
        """dial: `host:port` to connect to, by the authority of a URL; what a name server and a proxy would do."""
        self.sent: list[Sent] = []
        self._dial, self._idle, self._lock = (
            dial or {},
            list[tuple[str, http.client.HTTPConnection]](),
            threading.Lock(),
        )

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: BinaryIO | bytes = b"", size: int | None = None
    ) -> Reply:
        """size: of the body; None is its own length, or no length where GET and HEAD have no body."""
        parts = urlsplit(url)
        if not parts.netloc:
            raise ClientError("http: no Host in request URL")
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        fields = _on_the_wire(method, parts.netloc, headers, body, size)
        connection, is_kept = self._connection(parts.netloc)
        try:
            response = _exchange(connection, method, target, fields, body, size)
        except (http.client.RemoteDisconnected, ConnectionError):
            connection.close()
            if not is_kept or body:
                raise
            connection, _ = self._connection(parts.netloc, is_new=True)
            response = _exchange(connection, method, target, fields, body, size)
        with self._lock:
            self.sent.append(Sent(method, url, tuple(fields), response.status))
        return Reply(response, lambda: self._give_back(parts.netloc, connection, response), connection.close)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _connection(self, netloc: str, *, is_new: bool = False) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            for entry in self._idle:
                if entry[0] == netloc and not is_new:
                    self._idle.remove(entry)
                    return entry[1], True
        return http.client.HTTPConnection(self._dial.get(netloc, netloc), timeout=60), False

    def _give_back(
        self, netloc: str, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        if response.will_close:
            connection.close()
            return
        with self._lock:
            self._idle.append((netloc, connection))


def _on_the_wire(
    method: str, host: str, headers: Mapping[str, str], body: BinaryIO | bytes, size: int | None
) -> list[tuple[str, str]]:
    """Go's order: Host, User-Agent, the length, the others sorted, and at last what its transport adds."""
    fields = [("Host", host), ("User-Agent", headers.get("User-Agent", PART_AGENT))]
    if method not in ("GET", "HEAD"):
        fields.append(("Content-Length", str(len(body) if isinstance(body, bytes) and size is None else size)))
    fields += sorted((name, value) for name, value in headers.items() if name != "User-Agent")
    if method != "HEAD" and "Range" not in headers:
        fields.append(("Accept-Encoding", "gzip"))
    return fields


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    fields: list[tuple[str, str]],
    body: BinaryIO | bytes,
    size: int | None,
) -> http.client.HTTPResponse:
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in fields:
        connection.putheader(name, value)
    connection.endheaders()
    try:
        left = len(body) if isinstance(body, bytes) else size or 0
        while left > 0:
            piece = body[:left] if isinstance(body, bytes) else body.read(min(_BUFFER_BYTES, left))
            connection.send(piece)
            left -= len(piece)
    except ConnectionError:
        pass  # an early answer may have come before the server stopped reading
    return connection.getresponse()


@dataclass(frozen=True)
class Challenge:
    """What the client makes of the first WWW-Authenticate header."""

    realm: str
    service: str
    scope: str

    @classmethod
    def parse(cls, header: str) -> Challenge:
        text = header.removeprefix("Bearer ")
        return cls(_value(text, "realm"), _value(text, "service"), _value(text, "scope"))


def _value(header: str, key: str) -> str:
    """From the second character after the first `key=` to a quote that a comma or the end follows."""
    start = header.find(f"{key}=")
    if start < 0:
        return ""
    start += len(key) + 2
    end = start
    while end < len(header) and not (header[end] == '"' and header[end + 1 : end + 2] in ("", ",")):
        end += 1
    return header[start:end]


class Registry:
    """One operation's requests to one registry: a token is asked for on 401, and kept until the next one."""

    def __init__(
        self,
        url: str,
        key: PrivateKey,
        *,
        dial: Mapping[str, str] | None = None,
        skew_s: float = 0,
        retry_unit_s: float = 0.02,
    ) -> None:
        """skew_s: how far the client's clock is ahead. retry_unit_s: the client's is one second."""
        self.url, self.key, self.token = url.rstrip("/"), key, ""
        self.transport, self._skew_s, self._retry_unit_s = Transport(dial), skew_s, retry_unit_s

    @property
    def sent(self) -> list[Sent]:
        return self.transport.sent

    def path(self, repository: str, *rest: str) -> str:
        return "/".join((self.url, "v2", repository, *rest))

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: BinaryIO | bytes = b"",
        size: int | None = None,
    ) -> Reply:
        """One request, whatever comes of it."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.transport.send(method, url, {**(headers or {}), **bearer, "User-Agent": AGENT}, body, size)

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """A request that asks for a token where one is wanted, once. Raises ClientError."""
        for _ in range(2):
            reply = self.send(method, url, headers, body)
            if reply.status == 401:
                reply.close()
                self.authorize(reply, url)
                continue
            if reply.status == 404:
                reply.close()
                raise ClientError(NOT_FOUND)
            if reply.status >= 400:
                raise ClientError(f"{reply.status}: {reply.read().decode('utf-8', 'replace')}")
            if reply.status >= 300:
                raise ClientError(f"unexpected status code {reply.status}")
            return reply
        raise ClientError(REFUSED)

    def authorize(self, refused: Reply, url: str) -> None:
        """Ask the realm of the challenge for a token, with a signature of the key. Raises ClientError."""
        challenge = Challenge.parse(refused.headers.get("WWW-Authenticate", ""))
        realm, host = urlsplit(challenge.realm), urlsplit(url).netloc
        if realm.netloc != host:
            raise ClientError(f'realm host "{realm.netloc}" does not match original host "{host}"')
        pairs = [
            *parse_qsl(realm.query, keep_blank_values=True),
            ("service", challenge.service),
            *(("scope", each) for each in challenge.scope.split(" ")),
            ("ts", str(int(time.time() + self._skew_s))),
            ("nonce", base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()),
        ]
        asked = realm._replace(query=urlencode(sorted(pairs, key=lambda pair: pair[0]))).geturl()
        empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        signature = base64.b64encode(self.key.sign(f"GET,{asked},{empty}".encode())).decode()
        proof = f"{self.key.public.blob_base64}:{signature}"
        reply = self.transport.send("GET", asked, {"Authorization": proof, "User-Agent": AGENT})
        body = reply.read().decode("utf-8", "replace")
        if reply.status >= 400:
            raise ClientError(f"{reply.status}: {body}" if body else str(reply.status))
        self.token = json.loads(body).get("token", "")

    def attempts(self, act: Callable[[], None]) -> None:
        """Six tries with growing pauses. Raises ClientError, Canceled."""
        for number in range(_TRIES):
            try:
                return act()
            except (ClientError, OSError, EOFError, http.client.HTTPException) as error:
                last = error
                time.sleep(self._retry_unit_s * 2**number)
        raise ClientError(f"max retries exceeded: {last}")


@dataclass(frozen=True)
class LocalStore:
    """The client's folder of models: blobs by digest, manifests by name."""

    folder: Path

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "-")

    def manifest(self, name: str) -> Path:
        repository, _, tag = name.rpartition(":")
        return self.folder / "manifests" / "registry" / repository / tag

    def add(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def add_model(self, name: str, layers: list[tuple[str, bytes]], config: bytes, source: str = "") -> bytes:
        """A model as `ollama create` leaves it; source: what it was made from. Returns the manifest's bytes."""
        described = [
            {"mediaType": media_type, "digest": self.add(data), "size": len(data)}
            | ({"from": source} if source else {})
            for media_type, data in layers
        ]
        about = {"mediaType": CONFIG_TYPE, "digest": self.add(config), "size": len(config)}
        manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": about, "layers": described}
        raw = go_json(manifest) + b"\n"
        self.manifest(name).parent.mkdir(parents=True, exist_ok=True)
        self.manifest(name).write_bytes(raw)
        return raw


def go_json(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode()


def part_size(total: int, smallest: int, largest: int) -> int:
    return min(max(total // 16, smallest), largest)


@dataclass
class Part:
    """A range of a blob, and how much of it is here."""

    number: int
    offset: int
    size: int
    completed: int = 0

    @classmethod
    def load(cls, path: Path) -> Part:
        said = json.loads(path.read_bytes())
        return cls(said["N"], said["Offset"], said["Size"], said["Completed"])

    def save(self, partial: Path) -> None:
        said = {"N": self.number, "Offset": self.offset, "Size": self.size, "Completed": self.completed}
        partial.with_name(f"{partial.name}-{self.number}").write_bytes(go_json(said) + b"\n")
