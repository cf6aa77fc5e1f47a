"""What HTTP libraries refuse to send, sent; every answer judged by the rules that hold below /v2 whatever was asked."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.backends import open_sessions
from tests.client import Answer, Client
from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, digest_of, dump

CODES = frozenset({
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
    "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED",
    "UNSUPPORTED", "RANGE_INVALID", "TAG_INVALID", "PAGINATION_NUMBER_INVALID",
})  # fmt: skip
UNREAD = frozenset([400, 414, 417, 431, 501])  # of requests that are no HTTP, refused before anybody reads their path
REPOSITORY, ABSENT = "hostile/known", "hostile/absent"
EMPTY, BLOB = b"{}", bytes(range(256)) * 8


def descriptor(data: bytes, media_type: str = "application/x", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def image(**more: object) -> dict[str, object]:
    config, layers = descriptor(EMPTY), [descriptor(BLOB)]
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **more}


IMAGE = dump(image())
INDEX = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(IMAGE, OCI_MANIFEST)]})
REFERRER = dump(image(subject=descriptor(IMAGE, OCI_MANIFEST), annotations={"of": "the image"}))
_MANIFESTS = {"v1": (IMAGE, OCI_MANIFEST), "index": (INDEX, OCI_INDEX), "referrer": (REFERRER, OCI_MANIFEST)}


@dataclass
class World:
    """A server with one known repository and two open sessions in it: one to aim at, one that must never move."""

    host: str
    token: str
    data: Path
    target: str = ""
    bystander: str = ""

    def __post_init__(self) -> None:
        self.restore()

    def restore(self) -> None:
        """Put back whatever is gone."""
        client = Client(self.host, self.token)
        for blob in (EMPTY, BLOB):
            if self._get(f"/v2/{REPOSITORY}/blobs/{digest_of(blob)}")[0] != 200:
                client.push_blob(REPOSITORY, blob)
        for tag, (raw, media_type) in _MANIFESTS.items():
            if self._get(f"/v2/{REPOSITORY}/manifests/{tag}")[1] != raw:
                assert client.put_manifest(REPOSITORY, tag, raw, media_type).status == 201
        self.target, self.bystander = (self._open(client, session) for session in (self.target, self.bystander))

    def state(self) -> dict[str, object]:
        """All that a client can see of the repository and its sessions, every session, and files staged for uploads."""
        paths = ["/v2/_catalog", f"/v2/{REPOSITORY}/tags/list", f"/v2/{REPOSITORY}/referrers/{digest_of(IMAGE)}"]
        paths += [f"/v2/{REPOSITORY}/manifests/{tag}" for tag in _MANIFESTS]
        paths += [f"/v2/{REPOSITORY}/blobs/{digest_of(blob)}" for blob in (EMPTY, BLOB)]
        paths += [self.target, self.bystander]
        seen: dict[str, object] = {path: self._get(path) for path in paths}
        return seen | {"staged": {each.name for each in self._staged()}, "sessions": open_sessions(self.data)}

    def _open(self, client: Client, session: str) -> str:
        """`session` if it is as it was opened, else a new one: three bytes in."""
        if session and self._get(session)[2] == "3":
            return session
        location = client.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["Location"]
        assert client.request("PATCH", location, b"abc").status == 202
        return str(location).removeprefix(f"http://{self.host}")

    def _get(self, path: str) -> tuple[int, bytes, str]:
        answer = Client(self.host, self.token).request("GET", path)
        return answer.status, answer.body, answer.headers.get("X-Upload-Offset", "")

    def _staged(self) -> Iterable[Path]:
        folder = self.data / "uploads"
        return folder.iterdir() if folder.exists() else ()  # with a bucket there are no files


class _Received(io.BytesIO):
    """All that came; a response that is read must not close it for the next one."""

    def makefile(self, *_: object) -> _Received:
        return self

    def close(self) -> None: ...


def exchange(host: str, data: bytes, methods: Sequence[str] = ("GET",), timeout_s: float = 20) -> list[Answer]:
    """Send `data` and no more; the answers until the server closes. methods: of the requests that `data` holds."""
    name, _, port = host.partition(":")
    received = _Received()
    with socket.create_connection((name, int(port)), timeout_s) as connection:
        with suppress(OSError):  # refused and closed while we were still sending: the answer is there
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := connection.recv(2**16):
                received.write(piece)
    received.seek(0)
    answers: list[Answer] = []
    while received.tell() < len(received.getvalue()):
        response = http.client.HTTPResponse(received, method=methods[min(len(answers), len(methods) - 1)])  # type: ignore[arg-type]  # reads it, and no more
        response.begin()
        answer = Answer(response.status, response.headers, b"")
        body = received.read() if is_unread(answer) else response.read()  # the former even in answer to HEAD
        answers.append(replace(answer, body=body))
    return answers


def request(method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """The bytes of a request; header values may be anything that Latin-1 can spell."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def chunked(body: bytes, size: int = 2**16) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def is_unread(answer: Answer) -> bool:
    """Whether the server refused what is no HTTP, before it knew what was asked."""
    return "X-Request-Id" not in answer.headers and answer.status in UNREAD


def assert_sound(answer: Answer, method: str) -> None:
    """Never our fault, never a page, and a refusal in the spec's own words."""
    if is_unread(answer):
        assert answer.headers["Connection"] == "close"
        return
    assert answer.status < 500, answer
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    if method == "HEAD" or answer.status in (204, 304):
        assert answer.body == b""
    elif answer.status >= 400:
        assert answer.headers["Content-Type"] == "application/json"
        assert_errors(answer.json)
    elif answer.body:
        assert "html" not in answer.headers["Content-Type"]


def assert_errors(body: Mapping[str, object]) -> None:
    errors = body["errors"]
    assert isinstance(errors, list) and errors, body
    for error in errors:
        assert error.keys() == {"code", "message", "detail"}
        assert error["code"] in CODES, error
        assert error["message"] and isinstance(error["message"], str)
        json.dumps(error, allow_nan=False)
