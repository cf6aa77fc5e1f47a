"""Conditional pushes of a tag. Source: RFC 9110 "Conditional Requests"."""

from __future__ import annotations

import pytest

from tests.registry.conformance.wire import Registry, digest_of, dump

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ABSENT = f'"sha256:{"0" * 64}"'


def manifest(registry: Registry, repository: str, note: str) -> bytes:
    digest = registry.push_blob(repository, b"{}")
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2}
    return dump(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], "annotations": {"n": note}}
    )


@pytest.mark.parametrize(
    ("header", "value", "when_new", "when_there"),
    [
        ("If-None-Match", "*", 201, 412),
        ("If-Match", "*", 412, 201),
        ("If-Match", "{there}", 412, 201),
        ("If-Match", f"{ABSENT}, {{there}}", 412, 201),
        ("If-Match", ABSENT, 412, 412),
        ("If-None-Match", "{there}", 201, 412),
        ("If-None-Match", f"W/{ABSENT}", 201, 201),
    ],
)
def test_a_tag_moves_only_when_the_condition_holds(
    registry: Registry, repository: str, header: str, value: str, when_new: int, when_there: int
) -> None:
    first, second = (manifest(registry, repository, note) for note in ("first", "second"))
    condition = {header: value.format(there=f'"{digest_of(first)}"')}

    def push(raw: bytes, headers: dict[str, str]) -> int:
        path = f"/v2/{repository}/manifests/v1"
        return registry.request("PUT", path, raw, headers={"Content-Type": OCI_MANIFEST, **headers}).status

    assert push(first, condition) == when_new
    assert push(first, {}) == 201
    assert push(second, condition) == when_there
    wanted = second if when_there == 201 else first
    assert registry.get(f"/v2/{repository}/manifests/v1").body == wanted
