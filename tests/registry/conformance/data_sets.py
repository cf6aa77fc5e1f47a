"""What the conformance suite pushes: images, indexes, artifacts, and the unusual forms of each that must be taken."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, Registry, digest_of, dump

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"

Json = dict[str, Any]


@dataclass
class Pushed:
    """One manifest: its bytes, the tags it gets, and how its own descriptor reads."""

    raw: bytes
    body: Json
    digest: str
    tags: tuple[str, ...]

    @property
    def media_type(self) -> str:
        return str(self.body["mediaType"])

    @property
    def descriptor(self) -> Json:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}


@dataclass
class DataSet:
    """Blobs, then manifests in the order in which they may be pushed."""

    algorithm: str = "sha256"
    has_tag_parameters: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[Pushed] = field(default_factory=list)

    @property
    def tags(self) -> dict[str, Pushed]:
        return {tag: manifest for manifest in self.manifests for tag in manifest.tags}

    def blob(self, content: bytes, media_type: str = LAYER, *, is_pushed: bool = True, **fields: Any) -> Json:
        """A descriptor of bytes that are pushed with the set."""
        digest = digest_of(content, self.algorithm)
        if is_pushed:
            self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content), **fields}

    def layer(self, *, media_type: str = LAYER, is_pushed: bool = True) -> Json:
        return self.blob(os.urandom(300), media_type, is_pushed=is_pushed)

    def image(self, *tags: str, config: Json | None = None, layers: list[Json] | None = None, **fields: Any) -> Pushed:
        layers = [self.layer(), self.layer()] if layers is None else layers
        config = config or self.blob(dump({"os": "linux", "id": os.urandom(4).hex()}), CONFIG)
        return self.manifest(
            {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **fields}, tags
        )

    def artifact(self, *tags: str, artifact_type: str | None = "application/vnd.example+json", **fields: Any) -> Pushed:
        """An image with nothing in its config; without a type of its own, its config's type serves."""
        if artifact_type is None:
            return self.image(*tags, config=self.blob(b"{}", "application/vnd.example.config+json"), **fields)
        return self.image(*tags, config=self.blob(b"{}", EMPTY), artifactType=artifact_type, **fields)

    def index(self, *tags: str, children: list[Pushed], **fields: Any) -> Pushed:
        listed = [each.descriptor for each in children]
        return self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **fields}, tags)

    def manifest(self, body: Json, tags: tuple[str, ...]) -> Pushed:
        raw = dump(body)
        self.manifests.append(Pushed(raw, body, digest_of(raw, self.algorithm), tags))
        return self.manifests[-1]

    def referrers(self, subject: str) -> list[Json]:
        """What the list of its referrers must say, by what the manifests say."""
        found = []
        for each in self.manifests:
            if each.body.get("subject", {}).get("digest") != subject:
                continue
            kind = each.body.get("artifactType") or each.body.get("config", {}).get("mediaType")
            extra = {"artifactType": kind} if kind else {}
            extra |= {"annotations": each.body["annotations"]} if "annotations" in each.body else {}
            found.append({**each.descriptor, **extra})
        return found


def image(data: DataSet) -> None:
    data.image("image")


def image_uncompressed(data: DataSet) -> None:
    layers = [data.layer(media_type="application/vnd.oci.image.layer.v1.tar") for _ in range(2)]
    data.image("uncompressed", layers=layers)


def large_manifest(data: DataSet) -> None:
    data.image("large", annotations={f"example.{number}": "x" * 10_000 for number in range(390)})


def index(data: DataSet) -> None:
    data.index("index", children=[data.image(), data.image()])


def nested_index(data: DataSet) -> None:
    inner = [data.index(children=[data.image(), data.image()]) for _ in range(2)]
    data.index("index", children=inner)


def empty_index(data: DataSet) -> None:
    data.index("index", children=[])


def artifact(data: DataSet) -> None:
    data.artifact("artifact")


def artifact_index(data: DataSet) -> None:
    data.index("artifact-index", children=[data.artifact(), data.artifact()], artifactType="application/vnd.bundle")


def artifact_without_layers(data: DataSet) -> None:
    data.artifact("artifact", layers=[data.blob(b"{}", EMPTY)])


def artifacts_with_subject(data: DataSet) -> None:
    subject = data.image("image").descriptor
    data.artifact("signature", subject=subject, annotations={"example.kind": "signature"})
    data.artifact("config-typed", artifact_type=None, subject=subject)
    data.artifact(artifact_type="application/vnd.sbom", subject=subject, annotations={"a": "1", "b": ""})


def index_with_subject(data: DataSet) -> None:
    subject = data.index("index", children=[data.image(), data.image()]).descriptor
    children = [data.artifact(subject=subject), data.artifact(artifact_type="application/vnd.sbom", subject=subject)]
    data.index("bundle", children=children, subject=subject, artifactType="application/vnd.bundle")
    data.index(children=[], subject=subject, annotations={"example.type": "none"})


def missing_subject(data: DataSet) -> None:
    absent = {"mediaType": OCI_MANIFEST, "digest": digest_of(os.urandom(9), data.algorithm), "size": 9}
    data.artifact("tagged", subject=absent, annotations={"example": "yes"})


def data_field(data: DataSet) -> None:
    config = dump({"os": "linux"})
    inline = base64.b64encode(config).decode()
    data.image("data-field", config=data.blob(config, CONFIG, data=inline))


def non_distributable_layers(data: DataSet) -> None:
    foreign = [data.layer(media_type=FOREIGN, is_pushed=False) for _ in range(2)]
    data.image("foreign", layers=[data.layer(), *foreign])


def custom_fields(data: DataSet) -> None:
    config = data.blob(dump({"os": "linux", "org.example": [1, {"x": None}]}), CONFIG, custom="in a descriptor")
    child = data.image("custom-image", config=config, customText="ü\u2028", customNumber=1e3, nested={"deep": [[[]]]})
    data.index("custom-index", children=[child], another={"key": True})


def no_layers(data: DataSet) -> None:
    data.image("no-layers", layers=[])


def empty_layer(data: DataSet) -> None:
    data.image("empty-layer", layers=[data.blob(b""), data.layer()])


def sparse(data: DataSet) -> None:
    held = data.image("sparse-image", layers=[data.layer(), data.layer(is_pushed=False)])
    absent = DataSet(data.algorithm).image()
    data.index("sparse-index", children=[held, absent])


def without_tags(data: DataSet) -> None:
    data.index(children=[data.image(), data.image()], subject=data.image().descriptor)


def tag_parameters(data: DataSet) -> None:
    data.has_tag_parameters = True
    data.index("top", "other.Name_1", children=[data.image("one"), data.image("two")])


BUILDERS: tuple[Callable[[DataSet], None], ...] = (
    image,
    image_uncompressed,
    large_manifest,
    index,
    nested_index,
    empty_index,
    artifact,
    artifact_index,
    artifact_without_layers,
    artifacts_with_subject,
    index_with_subject,
    missing_subject,
    data_field,
    non_distributable_layers,
    custom_fields,
    no_layers,
    empty_layer,
    tag_parameters,
)


def built(builder: Callable[[DataSet], None], algorithm: str = "sha256") -> DataSet:
    data = DataSet(algorithm)
    builder(data)
    return data


def push_set(registry: Registry, repository: str, data: DataSet) -> None:
    """Push all of it: each manifest by digest, and by each of its tags."""
    for digest, blob in data.blobs.items():
        assert registry.push_blob(repository, blob, data.algorithm) == digest
    for manifest in data.manifests:
        for reference in (manifest.digest, *manifest.tags):
            answer = registry.put_manifest(repository, reference, manifest.raw, manifest.media_type)
            assert answer.status == 201, answer.body
