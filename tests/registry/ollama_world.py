"""A keyed server with a private namespace, a public one, and keys that may push and pull; models to push."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auth.keys import PrivateKey
from tests.client import MODEL_TYPE, Client
from tests.ollama_client import LocalStore, Registry
from tests.ollama_flows import Pull, Push
from tests.server import Server, running_server

LAYERS = [
    (MODEL_TYPE, os.urandom(1_200_000)),
    ("application/vnd.ollama.image.template", b"{{ if .System }}<|system|>{{ .System }}{{ end }}{{ .Prompt }}"),
    ("application/vnd.ollama.image.license", b""),
    ("application/vnd.ollama.image.params", b'{"stop":["\\u003c|im_end|\\u003e"]}\n'),
]
CONFIG = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"1M","file_type":"F32"}\n'
)
PART = 400_000


@dataclass
class World:
    server: Server
    folder: Path
    owner: PrivateKey
    reader: PrivateKey

    def registry(self, key: PrivateKey, **options: Any) -> Registry:
        return Registry(self.server.url, key, **options)

    def admin(self) -> Client:
        """Whoever may do everything."""
        return Client(self.server.host, self.server.admin_token)

    def enrol(self, key: PrivateKey, namespace: str, role: str) -> None:
        path = self.folder / "key.pub"
        path.write_text(f"{key.public.line}\n")
        self.server.run("key", "add", namespace, str(path), "--role", role)

    def push(
        self, name: str, folder: Path, registry: Registry | None = None, *, smallest_part: int = PART, **options: Any
    ) -> bytes:
        """Push a new model by that name; the bytes of its local manifest."""
        store = LocalStore(folder)
        raw = store.add_model(name, LAYERS, CONFIG)
        Push(registry or self.registry(self.owner), store, smallest_part=smallest_part, **options).run(name)
        return raw

    def pull(
        self, name: str, folder: Path, registry: Registry | None = None, *, smallest_part: int = PART, **options: Any
    ) -> LocalStore:
        store = LocalStore(folder)
        Pull(registry or self.registry(self.reader), store, smallest_part=smallest_part, **options).run(name)
        return store


@contextmanager
def ollama_world(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[World]:
    with running_server(folder / "data", environ) as server:
        for namespace, privacy in (("acme", "--private"), ("foreign", "--private"), ("open", "--public")):
            server.run("namespace", "create", namespace, privacy)
        world = World(server, folder, PrivateKey.generate(), PrivateKey.generate())
        for namespace in ("acme", "open"):
            world.enrol(world.owner, namespace, "push")
        world.enrol(world.reader, "acme", "pull")
        yield world


def without_newline(raw: bytes) -> bytes:
    return raw.removesuffix(b"\n")
