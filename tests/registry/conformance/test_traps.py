"""Traps that servers fall into one after the other, as far as no other file of this folder has them."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.registry.conformance.data_sets import DataSet, push_set
from tests.registry.conformance.wire import Registry, digest_of, with_query


def test_trap_6_the_status_of_a_session_ignores_a_stray_digest(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    registry.patch(location, b"abc")

    status = registry.get(with_query(location, digest=digest_of(b"other")))

    assert (status.status, status.headers["X-Upload-Offset"]) == (204, "3")


@pytest.mark.parametrize("written", ["application/vnd.kind+json", quote("application/vnd.kind+json", safe="")])
def test_trap_13_a_plus_in_an_artifact_type_is_a_plus(registry: Registry, repository: str, written: str) -> None:
    data = DataSet()
    subject = data.image("v1")
    data.artifact(artifact_type="application/vnd.kind+json", subject=subject.descriptor)
    push_set(registry, repository, data)

    listed = registry.get(f"/v2/{repository}/referrers/{subject.digest}?artifactType={written}").json["manifests"]

    assert [each["artifactType"] for each in listed] == ["application/vnd.kind+json"]


def test_trap_14_nothing_remembers_what_was_deleted(registry: Registry, repository: str) -> None:
    data = DataSet()
    pushed = data.image("v1")
    push_set(registry, repository, data)
    paths = [f"/v2/{repository}/manifests/{reference}" for reference in ("v1", pushed.digest)]
    for path in paths * 8:  # more often than there are processes
        assert registry.get(path).status == 200

    assert registry.request("DELETE", paths[1]).status == 202

    for path in paths * 8:
        assert registry.get(path).status == 404


@pytest.mark.parametrize("registry", [("keyed", "sqlite", "filesystem")], indirect=True, ids="-".join)
def test_trap_16_a_challenge_names_its_scheme_once(registry: Registry, repository: str) -> None:
    answer = Registry(registry.host).get(f"/v2/{repository}/tags/list")

    assert answer.status == 401
    (challenge,) = answer.headers.get_all("WWW-Authenticate")
    assert len(re.findall("(?i)bearer|basic", challenge)) == 1


@pytest.mark.parametrize(
    "name", ["blobs", "uploads/manifests", "a/blobs/uploads", "tags/list/referrers", "manifests/b"]
)
def test_trap_23_names_may_hold_the_words_of_paths(registry: Registry, name: str) -> None:
    data = DataSet()
    pushed = data.image("v1")

    push_set(registry, f"conformance/{name}", data)

    assert registry.get(f"/v2/conformance/{name}/manifests/v1").headers["Docker-Content-Digest"] == pushed.digest
    assert registry.get(f"/v2/conformance/{name}/tags/list").json["tags"] == ["v1"]
