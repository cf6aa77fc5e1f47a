"""A server that may reach one registry on this machine, and requests to pull and push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from registry.remotes.http import Origin
from tests.client import Answer, Client
from tests.faulty_registry import FaultyRegistry, faulty_registry
from tests.server import Server, running_server

JSON = dict[str, Any]
MIB = 1024 * 1024
CONFIG = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"1M","file_type":"F32"}\n'
)


@dataclass
class Pair:
    """A server, and a registry that its operator named."""

    server: Server
    registry: FaultyRegistry
    path: str = "a/m0"  # a model that nobody has pulled before

    @property
    def host(self) -> str:
        return Origin.of(self.registry.url).authority

    @property
    def client(self) -> Client:
        return Client(self.server.host)

    @property
    def admin(self) -> Client:
        return Client(self.server.host, self.server.admin_token)

    def repository(self, path: str = "") -> str:
        """Where the registry's repository is kept here."""
        return f"{self.host.replace(':', '__')}/{path or self.path}"

    def transfer(self, verb: str, model: str, **body: Any) -> list[JSON]:
        """Every line of a pull or push."""
        answer = self.post(verb, {"model": model, "insecure": True, **body})
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        text = answer.body.decode()
        assert text.endswith("\n")
        return [json.loads(line) for line in text.removesuffix("\n").split("\n")]

    def model(self, tag: str = "v1") -> str:
        return f"{self.host}/{self.path}:{tag}"

    def pull(self, path: str = "", **body: Any) -> list[JSON]:
        return self.transfer("pull", f"{self.host}/{path}" if path else self.model(), **body)

    def push(self, path: str = "", **body: Any) -> list[JSON]:
        return self.transfer("push", f"{self.host}/{path}" if path else self.model(), **body)

    def post(self, verb: str, body: object) -> Answer:
        return self.client.post_json(f"/api/{verb}", body)

    def stored(self, reference: str, path: str = "") -> Answer:
        """The manifest that is kept here."""
        return self.admin.request("GET", f"/v2/{self.repository(path)}/manifests/{reference}")

    def blob(self, digest: str, path: str = "") -> Answer:
        return self.admin.request("GET", f"/v2/{self.repository(path)}/blobs/{digest}")

    def forget(self) -> None:
        """Let the registry be as if it were new, and the model another one."""
        self.path = f"a/m{int(self.path.removeprefix('a/m')) + 1}"
        new = FaultyRegistry(url=self.registry.url)
        for field in fields(FaultyRegistry):
            setattr(self.registry, field.name, getattr(new, field.name))


@contextmanager
def pair(folder: Path, **environ: str) -> Iterator[Pair]:
    with faulty_registry() as registry:
        settings = {"TONNAGE_ALLOWED_HOSTS": Origin.of(registry.url).authority, **environ}
        with running_server(folder / "data", settings) as server:
            yield Pair(server, registry)


def add_model(registry: FaultyRegistry, tag: str, *layers: bytes, **descriptor: Any) -> list[str]:
    """A model of these layers and a config; the digests, in the order of their transfer."""
    kinds = ["model", "template", "license", "params"]
    digests = [registry.add(data) for data in (*layers, CONFIG)]
    described = [
        {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": len(data), **descriptor}
        for kind, digest, data in zip(kinds, digests, layers, strict=False)
    ]
    config = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": digests[-1],
        "size": len(CONFIG),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": config,
        "layers": described,
    }
    raw = json.dumps(manifest, indent=1).encode() + b"\n"  # not as anybody would write it anew
    registry.manifests[tag] = (raw, "text/plain; charset=utf-8")
    return digests


def words(lines: list[JSON]) -> list[str]:
    """The statuses, each once where it is repeated, and the error."""
    said = [line.get("status", line.get("error")) for line in lines]
    return [word for at, word in enumerate(said) if at == 0 or word != said[at - 1]]
