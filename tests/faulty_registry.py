"""A small registry on a real socket that fails where it is told to: it cuts, stalls, refuses, redirects and forgets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from auth.keys import PublicKey, token_request_text

CHUNK = 64 * 1024


@dataclass
class Fault:
    """Applies to requests whose method, path and beginning of Range match, `times` times, after the first `skip`.

    status: answer with this (and `headers`, `body`) instead. cut_after: take or send so many bytes of the body, then
    drop the connection. stall_after: the same, but go silent. lose_reply: do what is asked, then drop the connection.
    slowly: take the body a piece now and then. flip: a byte of the blob that goes out as another one.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    stall_after: int | None = None
    lose_reply: bool = False
    slowly: bool = False
    range: str = ""
    skip: int = 0
    flip: int | None = None


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]


@dataclass
class FaultyRegistry:
    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    patched_bytes: int = 0  # bytes of upload parts that arrived, kept or not
    sent_bytes: int = 0  # bytes of blobs that were sent
    at_once: int = 0  # blobs that are being sent; the most there were
    most_at_once: int = 0
    limit_at_once: int = 99  # who wants one more is told 429
    holds_until: int = 0  # so many are asked for at once: no byte of any is sent before
    was_held_in_vain: bool = False
    sum_bytes: int = 0  # of the chunks whose sums it tells; 0 is none
    sums: bytes | None = None  # what it tells instead
    broken_bodies: int = 0  # requests whose body ended before its end
    knows_ranges: bool = True
    has_empty_probe: bool = False  # Ollama's answer to a GET without Range: an empty 200 with a Location
    blob_location: str = ""  # where GETs of blobs are redirected, with blob_status
    blob_status: int = 307
    part_store: str = ""  # where upload parts are redirected
    relative_locations: bool = False
    realm: str = ""  # of the challenge; the registry's own when empty
    users: dict[str, str] = field(default_factory=dict)  # user → password for Basic; with keys, switches auth on
    keys: set[str] = field(default_factory=set)  # fingerprints that get tokens
    tokens: set[str] = field(default_factory=set)
    token_requests: list[str] = field(default_factory=list)
    asks_basic: bool = False
    is_public: bool = False  # gives tokens to whoever proves nothing
    silence: threading.Event = field(default_factory=threading.Event)
    lock: threading.Condition = field(default_factory=threading.Condition)
    stop: Callable[[], None] = lambda: None  # be gone: nothing listens there any more

    def count(self, method: str, path: str = "") -> int:
        return sum(1 for request in self.requests if request.method == method and path in request.target)

    def add(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add_model(self, tag: str, weights: bytes, **descriptor: Any) -> str:
        """A manifest of one layer; returns the layer's digest."""
        digest = self.add(weights)
        layer = {
            "mediaType": "application/vnd.ollama.image.model",
            "digest": digest,
            "size": len(weights),
            **descriptor,
        }
        self.manifests[tag] = (json.dumps({"schemaVersion": 2, "layers": [layer]}).encode(), "application/json")
        return digest


@contextmanager
def faulty_registry(**settings: Any) -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry(**settings)

    class Handler(_Handler):
        state = registry

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop() -> None:
        registry.silence.set()
        server.shutdown()
        server.server_close()
        thread.join(5)

    registry.stop = stop
    try:
        yield registry
    finally:
        stop()


class _Dropped(Exception):
    """The connection is to be closed without a further word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyRegistry

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def _handle(self) -> None:
        state = self.state
        state.requests.append(Request(self.command, self.path, dict(self.headers)))
        fault = next((f for f in state.faults if f.times and self._meets(f)), None)
        if fault and fault.skip:
            fault.skip, fault = fault.skip - 1, None
        if fault:
            fault.times -= 1
        try:
            self._serve(fault)
        except (_Dropped, ConnectionError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _handle  # noqa: N815  # the base class's names

    def _meets(self, fault: Fault) -> bool:
        is_its_range = self.headers.get("Range", "").startswith(fault.range)
        return fault.method == self.command and fault.path in self.path and is_its_range

    def _serve(self, fault: Fault | None) -> None:
        state, path = self.state, urlsplit(self.path).path
        if fault and fault.status:
            self._body(None)
            return self._answer(fault.status, fault.headers, fault.body)
        if path == "/v2/token":
            return self._token()
        if path.startswith("/v2/") and not self._is_allowed():
            return self._challenge()
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            self._body(fault)
            state.sessions[key := f"s{len(state.sessions)}"] = bytearray()
            return self._session(202, match[1], key, fault)
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w+)", path):
            return self._upload(match[1], match[2], fault)
        if match := re.search(r"/blobs/(sha256:\w+)$|^/cdn/(sha256:\w+)$", path):
            return self._blob(match[1] or match[2], is_cdn=bool(match[2]), fault=fault)
        if match := re.search(r"/chunksums/(sha256:\w+)$", path):
            return self._sums(match[1])
        if match := re.search(r"/manifests/(.+)$", path):
            return self._manifest(match[1])
        if path.startswith("/store/"):
            state.sessions[path.split("/")[2]] += self._body(fault)
            return self._answer(200)
        return self._answer(404)

    def _body(self, fault: Fault | None) -> bytes:
        """The request's body; with a fault, only its beginning, which is kept as if it had been stored."""
        length = int(self.headers.get("Content-Length") or 0)
        limit = fault.cut_after if fault else None
        if fault and fault.slowly:
            return self._slow_body(length)
        data = self.rfile.read(length if limit is None else min(limit, length))
        if self.command in {"PATCH", "PUT"}:
            self.state.patched_bytes += len(data)
        return data

    def _slow_body(self, length: int) -> bytes:
        data = b""
        while len(data) < length and (piece := self.rfile.read(min(CHUNK, length - len(data)))):
            data += piece
            self.state.patched_bytes += len(piece)
            self.state.silence.wait(0.02)
        if len(data) < length:
            self.state.broken_bodies += 1
            raise _Dropped
        return data

    def _upload(self, name: str, key: str, fault: Fault | None) -> None:
        state, session = self.state, self.state.sessions.get(key)
        if session is None:
            self._body(None)
            return self._oci_error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "GET":
            return self._session(204, name, key, fault)
        if self.command == "DELETE":
            del state.sessions[key]
            return self._answer(204)
        if self.command == "PATCH" and state.part_store:
            self._body(None)
            following = f"{state.url}/v2/{name}/blobs/uploads/{key}"
            return self._answer(
                307, {"Location": f"{state.part_store}/store/{key}", "Docker-Upload-Location": following}
            )
        if self.command == "PATCH":
            start = int(re.match(r"(\d+)-\d+$", self.headers["Content-Range"])[1])
            if start != len(session):
                self._body(None)
                return self._session(416, name, key, fault)
            session += self._body(fault)
            if fault and fault.cut_after is not None:
                raise _Dropped
            return self._session(202, name, key, fault)
        self._body(None)
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        if digest != "sha256:" + hashlib.sha256(session).hexdigest():
            return self._oci_error(400, "DIGEST_INVALID")
        state.blobs[digest] = bytes(session)
        del state.sessions[key]
        return self._answer(201, lose=bool(fault and fault.lose_reply))

    def _session(self, status: int, name: str, key: str, fault: Fault | None) -> None:
        base = "" if self.state.relative_locations else self.state.url
        offset = len(self.state.sessions[key])
        headers = {"Location": f"{base}/v2/{name}/blobs/uploads/{key}?_state=x", "Range": f"0-{max(offset - 1, 0)}"}
        self._answer(status, headers, lose=bool(fault and fault.lose_reply))

    def _blob(self, digest: str, *, is_cdn: bool, fault: Fault | None) -> None:
        state, data = self.state, self.state.blobs.get(digest)
        if data is None and not state.blob_location:
            return self._oci_error(404, "BLOB_UNKNOWN")
        if self.command == "HEAD":
            return self._answer(200, {"Content-Length": str(len(data or b""))})
        if state.blob_location and not is_cdn:
            return self._answer(state.blob_status, {"Location": f"{state.blob_location}/cdn/{digest}"})
        assert data is not None
        asked = self.headers.get("Range") if state.knows_ranges else None
        if state.has_empty_probe and not asked and not is_cdn:
            return self._answer(200, {"Location": f"/cdn/{digest}"})
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups() if asked else ("0", "")
        start, end = int(first), min(int(last or len(data)) + 1, len(data))
        headers = {"Content-Length": str(end - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        with state.lock:
            is_one_too_many = state.at_once >= state.limit_at_once
            state.at_once += not is_one_too_many
            state.most_at_once = max(state.most_at_once, state.at_once)
            state.lock.notify_all()
        if is_one_too_many:
            return self._answer(429)
        try:
            self._answer(206 if asked else 200, headers)
            self._hold()
            if fault and fault.flip is not None and start <= fault.flip < end:
                data = data[: fault.flip] + bytes([data[fault.flip] ^ 1]) + data[fault.flip + 1 :]
            self._send(data[start:end], fault)
        finally:
            with state.lock:
                state.at_once -= 1

    def _hold(self) -> None:
        state = self.state
        with state.lock:
            if not state.lock.wait_for(lambda: state.most_at_once >= state.holds_until, timeout=20):
                state.was_held_in_vain = True

    def _sums(self, digest: str) -> None:
        state, data = self.state, self.state.blobs.get(digest, b"")
        if not state.sum_bytes and state.sums is None:
            return self._answer(404)
        chunks = [(at, data[at : at + state.sum_bytes]) for at in range(0, len(data), state.sum_bytes or len(data))]
        lines = [f"sha256:{hashlib.sha256(each).hexdigest()} {at}-{at + len(each) - 1}\n" for at, each in chunks]
        return self._answer(200, body="".join(lines).encode() if state.sums is None else state.sums)

    def _send(self, data: bytes, fault: Fault | None) -> None:
        stop = None if fault is None else fault.cut_after if fault.cut_after is not None else fault.stall_after
        for at in range(0, len(data) if stop is None else stop, CHUNK):
            piece = data[at : at + CHUNK if stop is None else min(at + CHUNK, stop)]
            self.wfile.write(piece)
            with self.state.lock:
                self.state.sent_bytes += len(piece)
        if fault and fault.stall_after is not None:
            self.state.silence.wait(30)
        if stop is not None:
            raise _Dropped

    def _manifest(self, reference: str) -> None:
        if self.command == "PUT":
            self.state.manifests[reference] = (self._body(None), self.headers["Content-Type"])
            return self._answer(201)
        if reference not in self.state.manifests:
            return self._oci_error(404, "MANIFEST_UNKNOWN")
        raw, media_type = self.state.manifests[reference]
        return self._answer(200, {"Content-Type": media_type}, raw)

    def _is_allowed(self) -> bool:
        state = self.state
        sent = self.headers.get("Authorization", "")
        if state.asks_basic:
            return self._is_user(sent)
        return not (state.users or state.keys) or sent.removeprefix("Bearer ") in state.tokens

    def _is_user(self, sent: str) -> bool:
        user, _, password = base64.b64decode(sent.removeprefix("Basic ") or "").decode().partition(":")
        return user in self.state.users and self.state.users[user] == password

    def _challenge(self) -> None:
        self._body(None)
        realm = self.state.realm or f"{self.state.url}/v2/token"
        bearer = f'Bearer realm="{realm}",service="test",scope="repository:a/m:pull"'
        self._answer(401, {"WWW-Authenticate": 'Basic realm="test"' if self.state.asks_basic else bearer})

    def _token(self) -> None:
        state, sent = self.state, self.headers.get("Authorization", "")
        state.token_requests.append(self.path)
        if sent.startswith("Basic "):
            is_known = self._is_user(sent)
        elif not sent and state.is_public:
            is_known = True
        else:
            blob, _, signature = sent.partition(":")
            key = PublicKey.parse(blob) if blob else None
            text = token_request_text(f"http://{self.headers['Host']}{self.path}")
            is_known = bool(key and key.fingerprint in state.keys and key.verify(base64.b64decode(signature), text))
        if not is_known:
            return self._answer(401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"unknown key"}]}')
        state.tokens.add(token := f"t{len(state.token_requests)}")
        return self._answer(200, body=json.dumps({"token": token, "expires_in": 900}).encode())

    def _oci_error(self, status: int, code: str) -> None:
        self._answer(status, body=json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode())

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, lose: bool = False
    ) -> None:
        if lose:
            raise _Dropped
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
