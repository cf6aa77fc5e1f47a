"""What a manifest may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage.digest import Digest
from storage.errors import ManifestInvalid, ManifestTooLarge
from storage.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ORAS_ARTIFACT,
    Kind,
    Manifest,
)

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


def descriptor(content: bytes = b"x", media_type: str = "application/x", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image(**more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": descriptor(b"{}"), "layers": [descriptor(b"1")], **more}


def index(**more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "manifests": [descriptor(b"child")], **more}


def parse(body: object, content_type: str | None = OCI_MANIFEST) -> Manifest:
    return Manifest.parse(json.dumps(body).encode(), content_type)


@pytest.mark.parametrize(
    ("body", "content_type", "media_type", "kind"),
    [
        (image(), OCI_MANIFEST, OCI_MANIFEST, Kind.MANIFEST),
        (image(), f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST, Kind.MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), None, DOCKER_MANIFEST, Kind.MANIFEST),
        (image(mediaType=OCI_MANIFEST), OCI_MANIFEST, OCI_MANIFEST, Kind.MANIFEST),
        (image(), "", OCI_MANIFEST, Kind.MANIFEST),
        (index(), None, OCI_INDEX, Kind.INDEX),
        (index(), DOCKER_LIST, DOCKER_LIST, Kind.INDEX),
        ({"blobs": [descriptor()], "artifactType": "a/b"}, ORAS_ARTIFACT, ORAS_ARTIFACT, Kind.ARTIFACT),
    ],
)
def test_the_media_type_comes_from_the_header_else_the_body_else_the_shape(body, content_type, media_type, kind):
    manifest = parse(body, content_type)

    assert (manifest.media_type, manifest.kind) == (media_type, kind)


@pytest.mark.parametrize(
    "body",
    [
        image(layers=[]),
        image(layers=None),
        {"schemaVersion": 2, "config": descriptor()},
        image(custom={"any": [1, 2.5, None]}, annotations=None),
        image(layers=[descriptor(name="blk.0", **{"from": "/tmp/x"}, urls=["https://x"], platform=None, data="eA==")]),
        image(layers=[{"mediaType": "a", "digest": str(Digest.of(b"", "sha512")), "size": 0}]),
        image(subject=None, artifactType=""),
    ],
)
def test_what_is_unusual_but_legal_is_accepted(body):
    assert parse(body).config is not None


def test_an_empty_index_is_legal():
    assert parse(index(manifests=[]), OCI_INDEX).children == ()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ([], OCI_MANIFEST),
        ("text", OCI_MANIFEST),
        ({}, None),
        (image(mediaType=OCI_INDEX), OCI_MANIFEST),
        (image(), "application/json"),
        (image(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (image(manifests=[]), OCI_MANIFEST),
        (index(layers=[]), OCI_INDEX),
        (image(), OCI_INDEX),
        (image(schemaVersion=1), OCI_MANIFEST),
        (image(config=None), OCI_MANIFEST),
        ({"schemaVersion": 2, "layers": []}, OCI_MANIFEST),
        (image(layers={}), OCI_MANIFEST),
        (image(layers=["x"]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"digest": "sha256:bad"}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"digest": None}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"size": -1}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"size": True}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"size": 2**63}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"size": 1.0}]), OCI_MANIFEST),
        (image(layers=[descriptor() | {"mediaType": "a\nb"}]), OCI_MANIFEST),
        (image(layers=[{"digest": str(Digest.of(b"")), "size": 0}]), OCI_MANIFEST),
        (image(subject="sha256:x"), OCI_MANIFEST),
        (image(artifactType=7), OCI_MANIFEST),
        (image(artifactType="a b"), OCI_MANIFEST),
        (image(annotations=[]), OCI_MANIFEST),
        (image(annotations={"a": 1}), OCI_MANIFEST),
        (image(mediaType=5), None),
    ],
)
def test_what_contradicts_the_spec_is_refused(body, content_type):
    with pytest.raises(ManifestInvalid):
        parse(body, content_type)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff{}",
        b'{"schemaVersion":2,"schemaVersion":2,"config":{}}',
        b'{"annotations":{"a":"b","a":"c"}}',
        b'{"schemaVersion":NaN}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    ],
)
def test_what_is_no_plain_json_is_refused(raw):
    with pytest.raises(ManifestInvalid):
        Manifest.parse(raw, OCI_MANIFEST)


def test_nesting_up_to_the_limit_is_accepted():
    deep: Any = []
    for _ in range(62):
        deep = [deep]

    assert parse(image(custom=deep)).config is not None
    with pytest.raises(ManifestInvalid):
        parse(image(custom=[deep]))


def test_a_manifest_over_four_mebibytes_is_refused_as_too_large():
    with pytest.raises(ManifestTooLarge):
        Manifest.parse(b" " * (MAX_MANIFEST + 1), OCI_MANIFEST)


def test_an_empty_config_digest_of_an_early_model_is_no_config():
    manifest = parse(image(config={"mediaType": "", "digest": "", "size": 0}), DOCKER_MANIFEST)

    assert manifest.config is None


def test_foreign_layers_and_the_inline_empty_object_need_not_exist():
    body = image(
        config=descriptor(b"{}", data="e30="), layers=[descriptor(b"f", FOREIGN), descriptor(b"l"), descriptor(b"l")]
    )

    assert [blob.digest for blob in parse(body).required_blobs] == [Digest.of(b"l")]


def test_other_inline_data_must_exist_all_the_same():
    body = image(config=descriptor(b"xy", data="eHk="), layers=[])

    assert len(parse(body).required_blobs) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "artifact_type"),
    [
        (image(artifactType="a/b"), OCI_MANIFEST, "a/b"),
        (image(), OCI_MANIFEST, "application/x"),
        (index(), OCI_INDEX, None),
        (index(artifactType="a/b"), OCI_INDEX, "a/b"),
    ],
)
def test_the_artifact_type_falls_back_to_that_of_the_config(body, content_type, artifact_type):
    assert parse(body, content_type).artifact_type == artifact_type
