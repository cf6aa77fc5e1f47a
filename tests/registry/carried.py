"""Stores, archives made by hand, and what it takes to carry models between them without a command line."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auth.keys import PrivateKey
from registry.carry.importer import Brought, Importer
from registry.carry.inventory import digests_in
from registry.carry.layout import LAYOUT, REF_NAME, ModelAt
from registry.carry.plan import Plan
from registry.carry.reader import opened
from registry.carry.selection import chosen
from registry.carry.writer import ArchiveWriter, Written
from registry.remotes.progress import Bar
from storage.db import Database
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.manifest import OCI_INDEX, OCI_MANIFEST
from storage.reference import RepositoryName, Tag
from storage.store import Store
from tests.databases import migrated

KEY = PrivateKey.from_seed(b"k" * 32)
CONFIG = b'{"of": "an index"}'
BLOB_TYPE = "application/octet-stream"


@dataclass
class Noted:
    """Progress that remembers what was said, and where the last bar stood."""

    lines: list[str] = field(default_factory=list)
    position: int = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def bar(self, label: str, total: int) -> Bar:
        return self

    def move(self, position: int) -> None:
        self.position = position

    def close(self) -> None:
        pass


class Stores:
    """Any number of empty stores."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def new(self, folder: Path | None = None) -> Store:
        self._count += 1
        folder = folder or self._folder / f"store{self._count}"
        return Store(Database(migrated(folder)), FilesystemDriver(folder))


def export(store: Store, target: Path, *names: str, since: tuple[Path, ...] = (), key: PrivateKey = KEY) -> Written:
    plan = Plan.of(store, chosen(store.repositories, names))
    for path in since:
        plan.leave_out(digests_in(path))
    return ArchiveWriter(store, plan, key, Noted()).write(target)


def bring(store: Store, path: Path, into: ModelAt | None = None) -> tuple[Brought, list[str]]:
    """What came, and what was said meanwhile."""
    noted = Noted()
    with opened(path) as archive:
        brought = Importer(store, archive, noted, lambda at, _: noted.say(f"imported {at}")).run(into)
    return brought, noted.lines


def put_index(store: Store, name: str, tag: str, *texts: str) -> Digest:
    """An index of one manifest a text, in a repository of any name; all of it under sha512."""
    repository, children = RepositoryName(name), []
    for text in texts:
        blob = store.blobs.put(repository, text.encode(), algorithm="sha512")
        config = store.blobs.put(repository, CONFIG)
        layers = [described(BLOB_TYPE, blob.digest, blob.size)]
        raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
                          "config": described(BLOB_TYPE, config.digest, config.size)}).encode()  # fmt: skip
        digest = Digest.of(raw, "sha512")
        store.repositories.put_manifest(repository, digest, raw)
        children.append(described(OCI_MANIFEST, digest, len(raw)))
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, indent=2).encode()
    return store.repositories.put_manifest(repository, Tag(tag), raw).digest


def described(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def manifest_of(store: Store, name: str) -> bytes:
    at = ModelAt.parse(name)
    return store.repositories.get_manifest(at.repository, at.tag).raw


@dataclass
class Layout:
    """An image layout made by hand. entries: name to bytes, in the order of the archive."""

    entries: dict[str, bytes] = field(default_factory=lambda: {"oci-layout": LAYOUT, "index.json": b""})
    listed: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes, digest: Digest | None = None) -> Digest:
        digest = digest or Digest.of(data)
        self.entries[f"blobs/{digest.algorithm}/{digest.encoded}"] = data
        return digest

    def model(self, name: str | None, *layers: Digest, size: int = 4) -> Digest:
        """A manifest of layers of `size` bytes; its digest."""
        config = self.blob(b"{}")
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(BLOB_TYPE, config, 2),
                "layers": [described(BLOB_TYPE, layer, size) for layer in layers]}  # fmt: skip
        return self.manifest(name, json.dumps(body).encode())

    def manifest(self, name: str | None, raw: bytes) -> Digest:
        digest = self.blob(raw)
        named = {"annotations": {REF_NAME: name}} if name is not None else {}
        self.listed.append(described(OCI_MANIFEST, digest, len(raw)) | named)
        return digest

    def write(self, path: Path, *extra: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
        """extra: entries behind all others; those with a size get as many zeros. prefix: of the names before them."""
        if not self.entries["index.json"]:
            body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.listed}
            self.entries["index.json"] = json.dumps(body).encode()
        with tarfile.open(path, "w", format=form) as tar:
            for name, data in self.entries.items():
                info = tarfile.TarInfo(prefix + name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for info in extra:
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    info.pax_headers = {key.replace("_", "."): value for key, value in pax.items()}
    return info


def flip(path: Path, needle: bytes) -> None:
    """One bit of the first byte of what stands there once."""
    data = bytearray(path.read_bytes())
    at = data.find(needle)
    assert at >= 0 and data.count(needle) == 1
    data[at] ^= 1
    path.write_bytes(data)
