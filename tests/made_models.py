"""Making models over /api, for tests that have a client of the whole app; and the bytes such tests are made of."""

from __future__ import annotations

import hashlib
import json
import zipfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

JSON = dict[str, Any]
SUCCESS = {"status": "success"}
NETWORK = {"REMOTE_ADDR": "203.0.113.9"}  # of a request that comes from elsewhere


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def upload(client: FlaskClient, data: bytes) -> str:
    """Stage bytes; their digest."""
    digest = digest_of(data)
    assert client.post(f"/api/blobs/{digest}", data=data).status_code in (200, 201)
    return digest


def ask(client: FlaskClient, path: str, /, **body: Any) -> TestResponse:
    return client.post(path, data=json.dumps(body), content_type="application/x-www-form-urlencoded")


def create(client: FlaskClient, **body: Any) -> list[JSON]:
    """The lines of a create that begins to stream."""
    answer = ask(client, "/api/create", **body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.removesuffix("\n").split("\n")]


def made(client: FlaskClient, **body: Any) -> JSON:
    """What /api/show says of a model that has been created."""
    assert create(client, **body)[-1] == SUCCESS
    return show(client, body.get("model") or body["name"])


def refused(client: FlaskClient, **body: Any) -> tuple[int, str]:
    """Status and message of a create that is refused before it has begun to stream."""
    answer = ask(client, "/api/create", **body)
    assert set(answer.json or {}) == {"error"}, answer.text
    return answer.status_code, answer.json["error"]


def show(client: FlaskClient, name: str) -> JSON:
    answer = ask(client, "/api/show", model=name)
    assert answer.status_code == 200, answer.text
    found: JSON = answer.json
    return found


def names(client: FlaskClient) -> list[str]:
    return sorted(model["name"] for model in client.get("/api/tags").json["models"])


def manifest(client: FlaskClient, repository: str, tag: str = "latest") -> JSON:
    """As a registry client sees it."""
    answer = client.get(f"/v2/{repository}/manifests/{tag}", headers=_public(client, repository))
    assert answer.status_code == 200, answer.text
    found: JSON = json.loads(answer.data)
    return found


def blob(client: FlaskClient, repository: str, digest: str) -> bytes:
    answer = client.get(f"/v2/{repository}/blobs/{digest}", headers=_public(client, repository))
    assert answer.status_code == 200, answer.text
    return answer.data


def layer(client: FlaskClient, repository: str, kind: str, tag: str = "latest") -> bytes:
    """The bytes of the only layer of an Ollama kind."""
    (found,) = layers(client, repository, kind, tag)
    return blob(client, repository, found["digest"])


def layers(client: FlaskClient, repository: str, kind: str, tag: str = "latest") -> list[JSON]:
    listed = manifest(client, repository, tag)["layers"]
    return [each for each in listed if each["mediaType"] == f"application/vnd.ollama.image.{kind}"]


def _public(client: FlaskClient, repository: str) -> dict[str, str]:
    """Namespaces that come with their first model are private: these tests are not about that."""
    store = client.application.extensions["tonnage.store"]
    store.namespaces.set_private(repository.partition("/")[0], False)
    return {}


def gguf_bytes(arch: str = "test", *, tensors: bool = False, **metadata: Any) -> bytes:
    """A GGUF file with as little in it as is allowed. metadata: texts, integers, with `__` for a dot."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.gguf"
        writer = gguf.GGUFWriter(path, arch)
        for key, value in metadata.items():
            _add(writer, key.replace("__", "."), value)
        if tensors:
            writer.add_tensor("tensor", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif key.startswith("split.") and key != "split.tensors.count":
        writer.add_uint16(key, value)
    else:
        writer.add_uint32(key, value)


def shards(count: int = 3, seed: int = 0) -> list[bytes]:
    """Parts of a model that only its header tells of."""
    parts = []
    for number in range(count):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "part.gguf"
            writer = gguf.GGUFWriter(path, "llama" if number == 0 else "")
            if number == 0:
                writer.add_block_count(1)
                writer.add_embedding_length(32)
                writer.add_context_length(64)
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", count)
            writer.add_int32("split.tensors.count", count)
            writer.add_tensor(f"t{number}", np.full(32, number + seed, np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            parts.append(path.read_bytes())
    return parts


def zipped() -> bytes:
    """A model as other tools pack it."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.safetensors", b"weights")
    return buffer.getvalue()
