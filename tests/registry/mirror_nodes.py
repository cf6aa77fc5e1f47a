"""A registry to mirror, and what mirrors it without serving it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from registry.config import Config
from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.sync import Means, Sync, Synced
from registry.remotes.service import Remotes
from storage.db import Database
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import BlobUnknown, ManifestUnknown, NameUnknown
from storage.reference import RepositoryName, Tag
from storage.store import Store
from tests.client import Client
from tests.fault_proxy import FaultProxy
from tests.server import Server

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Upstream:
    """A real server, seen through a proxy that counts; `path` is a part of it that nobody else uses."""

    server: Server
    proxy: FaultProxy
    token_path: Path
    path: str

    @property
    def client(self) -> Client:
        return Client(self.server.host, self.server.admin_token)

    def push(self, model: str, tag: str, *blobs: bytes) -> Digest:
        """A manifest of these blobs, the first of which is its config."""
        repository = f"{self.path}/{model}"
        for blob in blobs:
            self.client.push_blob(repository, blob)
        raw = image(*blobs)
        assert self.client.put_manifest(repository, tag, raw, MANIFEST).status == 201
        return Digest.of(raw)

    def forget(self) -> None:
        """Count from here on."""
        self.proxy.heard.clear()

    def asked(self, method: str, what: str) -> int:
        return sum(1 for each in self.proxy.heard if each.method == method and what in each.target)


def image(*blobs: bytes) -> bytes:
    config, *layers = (
        {"mediaType": "application/octet-stream", "digest": str(Digest.of(blob)), "size": len(blob)} for blob in blobs
    )
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


@dataclass
class Node:
    """What is behind a server that mirrors; `lines` is what its syncs told."""

    store: Store
    config: Config
    mirror: Mirror
    lines: list[str] = field(default_factory=list)

    def means(self, **options: int) -> Means:
        return Means.of(Remotes(self.config.remotes), self.store, **options)

    def sync(self, *allow: str, **options: int) -> Synced:
        self.lines.clear()
        mirror = Mirrors(self.store.database).get(self.mirror.prefix)
        return Sync(self.means(**options), mirror, tell=self.lines.append, allow=allow).run()

    def holds(self, model: str, tag: str) -> Digest | None:
        """What the tag names, if every blob of it is here."""
        name = RepositoryName(f"{self.mirror.prefix}/{model}")
        try:
            found = self.store.repositories.get_manifest(name, Tag(tag))
            body = json.loads(found.raw)
            for blob in (body["config"], *body["layers"]) if "layers" in body else ():
                self.store.blobs.open(name, Digest.parse(blob["digest"])).close()
        except (ManifestUnknown, NameUnknown, BlobUnknown):
            return None
        return found.digest


def node_of(database: Database, folder: Path, mirror: Mirror) -> Node:
    config = Config(data=str(folder), database_url="")
    config.keys_path.mkdir(parents=True)
    Mirrors(database).add(mirror)
    return Node(Store(database, FilesystemDriver(folder)), config, mirror)


class Clock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now
