"""Deleting, pushing again, moving tags; names that look like paths."""

from __future__ import annotations

import pytest

from tests.registry.conformance.data_sets import DataSet, push_set
from tests.registry.conformance.wire import ALGORITHMS, OCI_INDEX, OCI_MANIFEST, Registry, digest_of, dump, path_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def tags(registry: Registry, repository: str) -> list[str]:
    return list(registry.get(f"/v2/{repository}/tags/list").json["tags"])


def status(registry: Registry, method: str, repository: str, reference: object) -> int:
    return registry.request(method, f"/v2/{repository}/manifests/{reference}").status


def test_a_tag_goes_alone_and_a_digest_takes_all_of_its_tags(registry: Registry, repository: str) -> None:
    data = DataSet()
    first, second = data.image("one", "two", "three", "four"), data.image("other")
    push_set(registry, repository, data)

    assert status(registry, "DELETE", repository, "one") == 202
    assert tags(registry, repository) == ["four", "other", "three", "two"]
    assert status(registry, "GET", repository, first.digest) == 200
    assert status(registry, "DELETE", repository, first.digest) == 202
    assert tags(registry, repository) == ["other"]
    assert [status(registry, "GET", repository, each) for each in ("two", first.digest)] == [404, 404]
    assert status(registry, "GET", repository, second.digest) == 200


def test_what_was_deleted_may_be_pushed_again(registry: Registry, repository: str) -> None:
    data = DataSet()
    image = data.image("v1")
    push_set(registry, repository, data)
    assert status(registry, "DELETE", repository, image.digest) == 202
    for digest in data.blobs:
        assert registry.request("DELETE", f"/v2/{repository}/blobs/{digest}").status == 202

    missing = registry.put_manifest(repository, "v1", image.raw)
    push_set(registry, repository, data)

    assert missing.code == "MANIFEST_BLOB_UNKNOWN"
    assert registry.get(f"/v2/{repository}/manifests/v1").body == image.raw


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_blob_that_a_manifest_lists_is_kept(registry: Registry, repository: str, algorithm: str) -> None:
    data = DataSet(algorithm)
    image = data.image()
    push_set(registry, repository, data)

    for digest in data.blobs:
        refused = registry.request("DELETE", f"/v2/{repository}/blobs/{digest}")
        assert (refused.status, refused.code) == (405, "DENIED")
        assert registry.head(f"/v2/{repository}/blobs/{digest}").status == 200
    assert status(registry, "DELETE", repository, image.digest) == 202
    for digest in data.blobs:
        assert registry.request("DELETE", f"/v2/{repository}/blobs/{digest}").status == 202


def test_a_child_may_go_before_its_index(registry: Registry, repository: str) -> None:
    data = DataSet()
    child = data.image()
    index = data.index("index", children=[child])
    push_set(registry, repository, data)

    assert status(registry, "DELETE", repository, child.digest) == 202
    assert status(registry, "GET", repository, child.digest) == 404
    assert registry.get(f"/v2/{repository}/manifests/index").body == index.raw


def test_referrers_outlive_their_subject(registry: Registry, repository: str) -> None:
    data = DataSet()
    subject = data.image("subject")
    referrer = data.artifact(subject=subject.descriptor)
    push_set(registry, repository, data)

    assert status(registry, "DELETE", repository, subject.digest) == 202
    path = f"/v2/{repository}/referrers/{subject.digest}"
    assert [each["digest"] for each in registry.get(path).json["manifests"]] == [referrer.digest]
    assert status(registry, "DELETE", repository, referrer.digest) == 202
    assert registry.get(path).json["manifests"] == []


def test_a_delete_ends_at_its_repository(registry: Registry, repository: str, other_repository: str) -> None:
    data = DataSet()
    image = data.image("v1")
    blob = registry.push_blob(repository, b"shared bytes")
    for each in (repository, other_repository):
        push_set(registry, each, data)
        assert registry.post(each, f"?mount={blob}&from={repository}").status == 201

    assert status(registry, "DELETE", repository, image.digest) == 202
    assert registry.request("DELETE", f"/v2/{repository}/blobs/{blob}").status == 202

    assert status(registry, "GET", other_repository, "v1") == 200
    assert registry.get(f"/v2/{other_repository}/blobs/{blob}").body == b"shared bytes"


def test_a_tag_moves_and_case_makes_another_one(registry: Registry, repository: str) -> None:
    data = DataSet()
    old, new = data.image("v1"), data.image("V1")
    push_set(registry, repository, data)
    assert registry.get(f"/v2/{repository}/manifests/v1").body == old.raw

    assert registry.put_manifest(repository, "v1", new.raw).status == 201

    moved = registry.get(f"/v2/{repository}/manifests/v1")
    assert (moved.body, moved.headers["Cache-Control"]) == (new.raw, "no-cache")
    assert status(registry, "GET", repository, old.digest) == 200
    assert tags(registry, repository) == ["V1", "v1"]


def test_a_body_without_media_type_is_what_its_header_says(registry: Registry, repository: str) -> None:
    config = {"mediaType": "application/x", "digest": registry.push_blob(repository, b"{}"), "size": 2}
    raw = dump({"schemaVersion": 2, "config": config, "layers": []})

    for tag, sent in (("plain", OCI_MANIFEST), ("with-parameter", f"{OCI_MANIFEST}; charset=utf-8")):
        answer = registry.put_manifest(repository, tag, raw, sent)
        assert answer.status == 201, answer.body
        assert registry.get(f"/v2/{repository}/manifests/{tag}").headers["Content-Type"] == OCI_MANIFEST


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX])
def test_each_type_comes_back_as_itself(registry: Registry, repository: str, media_type: str) -> None:
    body: dict[str, object] = {"schemaVersion": 2, "mediaType": media_type, "manifests": []}
    if media_type == DOCKER_MANIFEST:
        config = {"mediaType": "application/x", "digest": registry.push_blob(repository, b"{}"), "size": 2}
        body = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": None, "platform": None}
    raw = b"\n " + dump(body) + b"\n"

    assert registry.put_manifest(repository, "v1", raw, media_type).status == 201
    answer = registry.get(f"/v2/{repository}/manifests/v1", [("Accept", OCI_MANIFEST), ("Accept", "text/html")])
    assert (answer.headers["Content-Type"], answer.body) == (media_type, raw)


def descriptor(registry: Registry, repository: str, data: bytes, **fields: object) -> dict[str, object]:
    digest = registry.push_blob(repository, data)
    return {"mediaType": "application/x", "digest": digest, "size": len(data), **fields}


def test_what_is_unusual_is_taken(registry: Registry, repository: str) -> None:
    blob = descriptor(registry, repository, b"of a build cache")
    inline = {"mediaType": "application/x", "digest": digest_of(b"{}"), "size": 2, "data": "e30="}
    absent_subject = {"mediaType": "application/x", "digest": digest_of(b"never", "sha512"), "size": 5}
    old_config = {"mediaType": "", "digest": "", "size": 0}
    artifact_type = "application/vnd.oci.artifact.manifest.v1+json"
    image = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [blob, blob]}
    contents: dict[str, dict[str, object]] = {
        "index of blobs": {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [blob]},
        "empty object inline only": {**image, "config": inline},
        "subject under another algorithm": {**image, "config": blob, "subject": absent_subject},
        "urls and made-up fields": {**image, "config": {**blob, "urls": ["https://x.example"], "newUnspecified": 1}},
        "no config in an early model": {**image, "mediaType": DOCKER_MANIFEST, "config": old_config},
        "withdrawn artifact type": {"mediaType": artifact_type, "artifactType": "application/x", "blobs": [blob]},
    }
    for what, body in contents.items():
        raw = dump(body)
        answer = registry.put_manifest(repository, digest_of(raw), raw, str(body["mediaType"]))
        assert answer.status == 201, (what, answer.body)
        assert registry.get(f"/v2/{repository}/manifests/{digest_of(raw)}").body == raw


@pytest.mark.parametrize(
    "name",
    [
        "blobs/uploads",
        "manifests/v1",
        "tags/list",
        "referrers/x",
        "blobs/uploads/blobs/uploads",
        "a/b/c/d/e/f/g/h/i/j/k",
        "a--b/c__d/e.f/g_h",
    ],
)
def test_a_name_may_be_made_of_the_specs_words(registry: Registry, repository: str, name: str) -> None:
    name = f"{repository}/{name}"
    data = DataSet()
    image = data.image("list")
    push_set(registry, name, data)

    assert registry.get(f"/v2/{name}/manifests/list").body == image.raw
    assert tags(registry, name) == ["list"]
    assert registry.get(f"/v2/{name}/referrers/{image.digest}").json["manifests"] == []
    assert path_of(registry.post(name)).startswith(f"/v2/{name}/blobs/uploads/")


def test_two_sessions_may_bring_the_same_blob(registry: Registry, repository: str, other_repository: str) -> None:
    data = b"the same" * 100
    sessions = [registry.open_session(name) for name in (repository, repository, other_repository)]
    for session in sessions:
        assert registry.patch(session, data).status == 202

    assert [registry.close_session(session, digest_of(data)).status for session in sessions] == [201] * 3
    assert registry.get(f"/v2/{other_repository}/blobs/{digest_of(data)}").body == data


def test_a_token_too_narrow_is_challenged_and_not_forbidden(registry: Registry, repository: str) -> None:
    registry.get(f"/v2/{repository}/tags/list")

    assert registry.post(repository).status == 202
    if registry.challenges:
        assert f'scope="repository:{repository}:pull,push"' in registry.challenges[-1]
        assert 'error="insufficient_scope"' in registry.challenges[-1]


@pytest.mark.parametrize("path", ["tags/list/", "manifests/", "blobs/", "tags", "referrers/", ""])
def test_no_path_redirects(registry: Registry, repository: str, path: str) -> None:
    registry.push_blob(repository, b"{}")

    answer = registry.get(f"/v2/{repository}/{path}")

    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")
