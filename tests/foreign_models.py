"""Models as other tools push them: their manifests, config documents and layers, around weights of ours."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.client import Client

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER = "application/vnd.docker.ai."
MODELPACK = "application/vnd.cncf.model."
KITOPS = "application/vnd.kitops.modelkit."
TAR = "application/vnd.oci.image.layer.v1.tar"
TITLE, FILEPATH = "org.opencontainers.image.title", "org.cncf.model.filepath"
CHAT = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"


@dataclass(frozen=True)
class File:
    """A layer. media_type and annotations are the descriptor's."""

    media_type: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """What a tool pushes under one tag. members: further ones of the manifest; None leaves one out."""

    config: File
    layers: Sequence[File]
    members: Mapping[str, Any] = field(default_factory=dict)

    def push(self, client: Client, repository: str, reference: str = "") -> dict[str, Any]:
        """Push it, under its digest without a `reference`. Returns the manifest's descriptor."""
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _pushed(client, repository, self.config),
            "layers": [_pushed(client, repository, each) for each in self.layers],
        } | self.members
        body = {key: value for key, value in body.items() if value is not None}
        return put(client, repository, reference, json.dumps(body).encode(), OCI_MANIFEST)


def put(client: Client, repository: str, reference: str, raw: bytes, media_type: str) -> dict[str, Any]:
    """Put a manifest whose blobs are there. Returns its descriptor."""
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    answer = client.put_manifest(repository, reference or digest, raw, media_type)
    assert answer.status == 201, answer.body
    return {"mediaType": media_type, "digest": digest, "size": len(raw)}


def push_index(client: Client, repository: str, tag: str, children: Sequence[Mapping[str, Any]]) -> None:
    """Put an index of pushed manifests, by their descriptors."""
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}).encode()
    put(client, repository, tag, raw, OCI_INDEX)


def packed(members: Mapping[str, bytes], *, style: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=style) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def document(media_type: str, body: Mapping[str, Any]) -> File:
    return File(media_type, json.dumps(body).encode())


def docker_model(*layers: File, version: str = "0.1", **config: Any) -> Artifact:
    """As Docker Model Runner packages it."""
    facts = {"format": "gguf", "quantization": "Q8_0", "parameters": "361.82 M", "architecture": "llama"} | config
    body = {"config": facts, "descriptor": {"created": "2026-01-01T00:00:00Z"}, "rootfs": {"type": "rootfs"}}
    return Artifact(document(f"{DOCKER}model.config.v{version}+json", body), layers)


def modelpack(*layers: File, **config: Any) -> Artifact:
    """As ModelPack tools (modctl, and Docker's with another output) package it."""
    facts = {"architecture": "transformer", "format": "gguf", "paramSize": "8b", "quantization": "Q5_1"} | config
    body = {
        "descriptor": {"createdAt": "2026-01-01T00:00:00Z", "name": "m", "licenses": ["Apache-2.0"]},
        "config": facts,
        "modelfs": {"type": "layers", "diffIds": []},
    }
    members = {"artifactType": f"{MODELPACK}manifest.v1+json"}
    return Artifact(document(f"{MODELPACK}config.v1+json", body), layers, members)


def modelkit(*layers: File, members: Mapping[str, Any] | None = None) -> Artifact:
    """As KitOps packages it; its older versions name no `mediaType`."""
    kitfile = {
        "manifestVersion": "1.0.0",
        "package": {"name": "m", "license": "MIT"},
        "model": {"name": "m", "path": "model.gguf", "format": "gguf"},
    }
    return Artifact(document(f"{KITOPS}config.v1+json", kitfile), layers, members or {"mediaType": None})


def ramalama_artifact(data: bytes, *, media_type: str = "application/octet-stream") -> Artifact:
    """As `podman artifact add` has it for RamaLama: the type says nothing, the annotation all."""
    layers = [File(media_type, data, {FILEPATH: "tiny/tiny.gguf"})]
    return Artifact(File(EMPTY, b"{}"), layers, {"artifactType": f"{MODELPACK}manifest.v1+json"})


def ramalama_image(data: bytes, *, kind: str = "raw", compressed: bool = False) -> Artifact:
    """A container image of a model, as RamaLama builds it; kind: `raw` or `car`."""
    tar = packed({"models/tiny/README.md": b"a model", "models/tiny/tiny.gguf": data})
    labels = {"org.containers.type": f"ai.image.model.{kind}"}
    body = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}, "rootfs": {"type": "layers"}}
    layer = File(TAR + ("+gzip" if compressed else ""), gzip.compress(tar) if compressed else tar)
    return Artifact(document("application/vnd.oci.image.config.v1+json", body), [layer])


def oras_files(*files: tuple[str, bytes], media_type: str = TAR) -> Artifact:
    """As `oras push` has it: files of one type, whatever they are, by their names."""
    layers = [File(media_type, data, {TITLE: name}) for name, data in files]
    return Artifact(File(EMPTY, b"{}"), layers, {"artifactType": "application/vnd.unknown.artifact.v1"})


def oras_folder(data: bytes) -> Artifact:
    """As `oras push` has a folder."""
    layer = File(TAR, packed({"tiny/tiny.gguf": data}), {TITLE: "tiny", "io.deis.oras.content.unpack": "true"})
    return Artifact(File(EMPTY, b"{}"), [layer], {"artifactType": "application/vnd.unknown.artifact.v1"})


def _pushed(client: Client, repository: str, file: File) -> dict[str, Any]:
    digest = client.push_blob(repository, file.data)
    descriptor = {"mediaType": file.media_type, "digest": digest, "size": len(file.data)}
    return descriptor | ({"annotations": dict(file.annotations)} if file.annotations else {})
