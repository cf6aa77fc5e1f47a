"""A models folder as Ollama keeps one, made by tests. Source: the Ollama registry protocol, "On-disk store"."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from storage.digest import Digest
from tests.stored_models import CONFIG_TYPE, MANIFEST_TYPE, OLLAMA

DEFAULT = "registry.ollama.ai/library"
CONFIG = b'{"model_format":"gguf","model_family":"llama","file_type":"F32"}\n'


class OllamaFolderMaker:
    """Writes at `path` what a daemon would; files are its own user's, mode 0644."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in ("manifests", "blobs"):
            (path / folder).mkdir(parents=True)

    def blob(self, digest: Digest) -> Path:
        return self.path / "blobs" / f"sha256-{digest.encoded}"

    def manifest(self, place: str) -> Path:
        """`<host>/<namespace>/<model>/<tag>` as a file."""
        return self.path / "manifests" / place

    def add_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        path = self.blob(digest)
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o644)
        return digest

    def add_manifest(self, place: str, raw: bytes) -> bytes:
        path = self.manifest(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return raw

    def add(self, place: str, *layers: bytes, config: bytes = CONFIG) -> bytes:
        """A model of these layers, weights first; its manifest with the line's end that a local one has."""
        kinds = ["model", "template", "license"]
        described = [
            {"mediaType": OLLAMA + kind, "digest": str(self.add_blob(data)), "size": len(data)}
            for kind, data in zip(kinds, layers, strict=False)
        ]
        body = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": str(self.add_blob(config)), "size": len(config)},
            "layers": described,
        }
        return self.add_manifest(place, json.dumps(body, separators=(",", ":")).encode() + b"\n")

    def seen(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Every file: mode, size, when it was written, bytes."""
        files = (path for path in self.path.rglob("*") if stat.S_ISREG(path.lstat().st_mode))
        found = ((path, path.lstat()) for path in files)
        return {str(path): (each.st_mode, each.st_size, each.st_mtime_ns, path.read_bytes()) for path, each in found}
