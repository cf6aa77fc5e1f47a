"""Whole contents go in, are listed, read, referred to, and deleted."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPMessage
from urllib.parse import quote

import pytest

from tests.registry.conformance import data_sets
from tests.registry.conformance.data_sets import BUILDERS, DataSet, Pushed, built
from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, Registry, digest_of, path_of

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = [("Accept", f"{OCI_MANIFEST}, {DOCKER}"), ("Accept", OCI_INDEX)]


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_a_content_lives_from_push_to_delete(
    registry: Registry, repository: str, builder: Callable[[DataSet], None]
) -> None:
    run_workflow(registry, repository, built(builder))


@pytest.mark.parametrize(
    "builder", [data_sets.without_tags, data_sets.tag_parameters], ids=lambda builder: builder.__name__
)
def test_a_sha512_content_keeps_its_digests(
    registry: Registry, repository: str, builder: Callable[[DataSet], None]
) -> None:
    run_workflow(registry, repository, built(builder, "sha512"))


def test_a_sparse_content_is_taken_where_the_server_allows_it(sparse_registry: Registry, repository: str) -> None:
    run_workflow(sparse_registry, repository, built(data_sets.sparse))


def test_a_sparse_content_is_refused_elsewhere(registry: Registry, repository: str) -> None:
    data = built(data_sets.sparse)
    for digest, blob in data.blobs.items():
        assert registry.push_blob(repository, blob) == digest

    answers = [registry.put_manifest(repository, one.digest, one.raw, one.media_type) for one in data.manifests]

    assert [(answer.status, answer.code) for answer in answers] == [(400, "MANIFEST_BLOB_UNKNOWN")] * 2


def test_every_content_lives_in_one_repository(registry: Registry, repository: str) -> None:
    """The suite uses one repository for all of its contents, which share blobs and the names of tags."""
    for builder in (data_sets.index, data_sets.nested_index, data_sets.artifact, data_sets.artifact_without_layers):
        run_workflow(registry, repository, built(builder))


def run_workflow(registry: Registry, repository: str, data: DataSet) -> None:
    push(registry, repository, data)
    list_tags(registry, repository, data)
    for manifest in data.manifests:
        for reference in (manifest.digest, *manifest.tags):
            check_manifest(registry, f"/v2/{repository}/manifests/{reference}", manifest)
    for digest, blob in data.blobs.items():
        path = f"/v2/{repository}/blobs/{digest}"
        head, get = registry.head(path), registry.get(path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(blob)))
        assert (get.status, get.body, get.headers["Docker-Content-Digest"]) == (200, blob, digest)
    for subject in {one.body["subject"]["digest"] for one in data.manifests if "subject" in one.body}:
        list_referrers(registry, repository, data, subject)
    delete(registry, repository, data)


def push(registry: Registry, repository: str, data: DataSet) -> None:
    for digest, blob in data.blobs.items():
        assert registry.push_blob(repository, blob, data.algorithm) == digest
    for manifest in data.manifests:
        if data.has_tag_parameters:
            put = check_put(registry, repository, manifest.digest, manifest, manifest.tags)
            assert ",".join(put.get_all("OCI-Tag") or []) == ",".join(manifest.tags)
            continue
        for reference in (manifest.digest, *manifest.tags):
            put = check_put(registry, repository, reference, manifest)
            assert "OCI-Tag" not in put


def check_put(
    registry: Registry, repository: str, reference: str, manifest: Pushed, tags: tuple[str, ...] = ()
) -> HTTPMessage:
    answer = registry.put_manifest(repository, reference, manifest.raw, manifest.media_type, tags)
    assert (answer.status, answer.body) == (201, b""), answer.body
    assert path_of(answer) == f"/v2/{repository}/manifests/{manifest.digest}"
    assert answer.headers["Docker-Content-Digest"] == manifest.digest
    assert answer.headers["OCI-Subject"] == manifest.body.get("subject", {}).get("digest")
    check_manifest(registry, answer.headers["Location"], manifest)
    return answer.headers


def check_manifest(registry: Registry, url: str, manifest: Pushed) -> None:
    for method, body in (("HEAD", b""), ("GET", manifest.raw)):
        answer = registry.request(method, url, headers=ACCEPT)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers.get_all("Content-Type") == [manifest.media_type]
        assert answer.headers.get_all("Content-Length") == [str(len(manifest.raw))]
        assert answer.headers["Docker-Content-Digest"] == manifest.digest
        assert answer.headers["ETag"] == f'"{manifest.digest}"'
    assert registry.get(url, {"If-None-Match": f'"{manifest.digest}"'}).status == 304


def list_tags(registry: Registry, repository: str, data: DataSet) -> None:
    answer = registry.get(f"/v2/{repository}/tags/list")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    tags = sorted(data.tags)
    assert answer.json == {"name": repository, "tags": tags}
    if tags:
        middle = tags[len(tags) // 2]
        after = registry.get(f"/v2/{repository}/tags/list?last={middle}")
        assert after.json["tags"] == [tag for tag in tags if tag > middle]


def list_referrers(registry: Registry, repository: str, data: DataSet, subject: str) -> None:
    expected = data.referrers(subject)
    path = f"/v2/{repository}/referrers/{subject}"
    listed = registry.get(path)
    assert (listed.status, listed.headers["Content-Type"]) == (200, OCI_INDEX)
    assert "OCI-Filters-Applied" not in listed.headers
    assert listed.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": expected}
    for kind in {each["artifactType"] for each in expected if "artifactType" in each} | {"application/vnd.none"}:
        for spelling in (kind, quote(kind, safe="")):  # a plus sign, raw and escaped
            filtered = registry.get(f"{path}?artifactType={spelling}&unknown=filter")
            assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
            assert filtered.json["manifests"] == [each for each in expected if each.get("artifactType") == kind]


def delete(registry: Registry, repository: str, data: DataSet) -> None:
    """Tags, then manifests newest first, then blobs; what is deleted is gone at once."""
    for tag, manifest in data.tags.items():
        check_delete(registry, f"/v2/{repository}/manifests/{tag}")
        assert registry.head(f"/v2/{repository}/manifests/{manifest.digest}").status == 200
    for manifest in reversed(data.manifests):
        check_delete(registry, f"/v2/{repository}/manifests/{manifest.digest}")
        if "subject" in manifest.body:
            listed = registry.get(f"/v2/{repository}/referrers/{manifest.body['subject']['digest']}").json["manifests"]
            assert manifest.digest not in [each["digest"] for each in listed]
    for digest in data.blobs:
        check_delete(registry, f"/v2/{repository}/blobs/{digest}")
    assert registry.get(f"/v2/{repository}/tags/list").json["tags"] == []


def check_delete(registry: Registry, path: str) -> None:
    assert registry.head(path).status == 200
    gone = registry.request("DELETE", path)
    assert (gone.status, gone.body) == (202, b""), gone.body
    assert registry.head(path).status == 404
    assert registry.get(path).status == 404
    assert registry.request("DELETE", path).status == 404


def test_a_tag_of_a_sha512_manifest_reports_what_it_was_pushed_by(registry: Registry, repository: str) -> None:
    data = built(data_sets.tag_parameters, "sha512")
    push(registry, repository, data)

    for tag, manifest in data.tags.items():
        answer = registry.head(f"/v2/{repository}/manifests/{tag}")
        assert answer.headers["Docker-Content-Digest"] == manifest.digest
        as_sha256 = digest_of(manifest.raw)
        assert registry.head(f"/v2/{repository}/manifests/{as_sha256}").status == 404, "another identity"
