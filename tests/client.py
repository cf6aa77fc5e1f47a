"""A plain HTTP client for tests over real sockets: what is sent is what the test says, byte for byte."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MODEL_TYPE = "application/vnd.ollama.image.model"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error code of an OCI errors body."""
        return str(self.json["errors"][0]["code"])


class Client:
    """Requests to one server, each on a connection of its own, with a bearer token where one is given."""

    def __init__(self, host: str, token: str = "") -> None:
        self.host, self.token = host, token

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        timeout_s: float = 60,
    ) -> Answer:
        connection, response = self.open(method, path, body, headers, chunked=chunked, timeout_s=timeout_s)
        with connection_closing(connection):
            return Answer(response.status, response.headers, response.read())

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        timeout_s: float = 60,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, timeout=timeout_s)
        path = path.removeprefix(f"http://{self.host}")
        sent = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **(headers or {})}
        # what refuses before all of the body was read may close; its answer is there
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=sent, encode_chunked=chunked)
        return connection, connection.getresponse()

    def post_json(self, path: str, body: object, **options: Any) -> Answer:
        return self.request("POST", path, json.dumps(body).encode(), **options)

    def lines(self, path: str, body: object, timeout_s: float = 120) -> Iterator[dict[str, Any]]:
        """The objects of an ndjson stream as they come."""
        connection, response = self.open("POST", path, json.dumps(body).encode(), timeout_s=timeout_s)
        with connection_closing(connection):
            assert response.status == 200, response.read()
            for line in response:
                yield json.loads(line)

    def push_blob(self, repository: str, data: bytes | Path) -> str:
        """Push bytes, or a file without holding it in memory; returns the digest."""
        start = self.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
        assert start.status == 202, start.body
        location = start.headers["Location"]
        if isinstance(data, Path):
            digest = file_digest(data)
            with data.open("rb") as file:
                sent = self.request("PATCH", location, file, {"Content-Length": str(data.stat().st_size)})
            assert sent.status == 202, sent.body
            done = self.request("PUT", f"{location}?digest={digest}", headers={"Content-Length": "0"})
        else:
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            done = self.request("PUT", f"{location}?digest={digest}", data)
        assert done.status == 201, done.body
        return digest

    def push_model(self, repository: str, tag: str, weights: Path, extra: Mapping[str, bytes] | None = None) -> Answer:
        """Push a GGUF as the `ollama` client would; `extra` are further layers by media type."""
        facts = {"model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "model_type": "1M"}
        config = json.dumps({**facts, "file_type": "F32"}).encode()
        layers = [
            {"mediaType": MODEL_TYPE, "digest": self.push_blob(repository, weights), "size": weights.stat().st_size}
        ]
        for media_type, data in (extra or {}).items():
            layers.append({"mediaType": media_type, "digest": self.push_blob(repository, data), "size": len(data)})
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": self.push_blob(repository, config), "size": len(config)},
            "layers": layers,
        }
        answer = self.put_manifest(repository, tag, json.dumps(manifest).encode())
        assert answer.status == 201, answer.body
        return answer

    def put_manifest(self, repository: str, reference: str, raw: bytes, media_type: str = DOCKER_MANIFEST) -> Answer:
        return self.request("PUT", f"/v2/{repository}/manifests/{reference}", raw, {"Content-Type": media_type})


class connection_closing:  # noqa: N801  # reads as a verb at its uses
    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
