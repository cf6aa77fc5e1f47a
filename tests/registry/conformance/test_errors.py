"""Refusals: references that cannot be, manifests that must not be taken, and pages without sense."""

from __future__ import annotations

from typing import Any

import pytest

from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, Registry, digest_of, dump

EMPTY = b"{}"
ABSENT = "sha256:" + "1" * 64


@pytest.fixture(scope="module")
def place(registry: Registry) -> str:
    """A repository that holds `{}`."""
    registry.push_blob("conformance/errors", EMPTY)
    return "conformance/errors"


def descriptor(**fields: Any) -> dict[str, Any]:
    return {"mediaType": "application/x", "digest": digest_of(EMPTY), "size": len(EMPTY), **fields}


def image(**fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(), "layers": [], **fields}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
        ("HEAD", "manifests/.INVALID_MANIFEST_NAME", 404, ""),
        ("GET", "manifests/sha256:totallywrong", 404, "MANIFEST_UNKNOWN"),
        ("GET", "manifests/sha256:baddigeststring", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "manifests/absent", 404, "MANIFEST_UNKNOWN"),
        ("GET", "manifests/" + "t" * 129, 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "manifests/absent", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", f"manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "blobs/sha256:bad", 404, "BLOB_UNKNOWN"),
        ("HEAD", "blobs/sha256:bad", 404, ""),
        ("DELETE", f"blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        ("DELETE", "blobs/sha256:bad", 404, "BLOB_UNKNOWN"),
        ("GET", "referrers/sha256:bad", 400, "DIGEST_INVALID"),
        ("GET", "referrers/tag", 400, "DIGEST_INVALID"),
        ("PUT", "manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("PUT", "manifests/sha256:" + "A" * 64, 400, "DIGEST_INVALID"),
        ("PUT", "manifests/.bad", 400, "TAG_INVALID"),
        ("PUT", "manifests/" + "t" * 129, 400, "TAG_INVALID"),
        ("GET", "tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "blobs/uploads/nosuch", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "blobs/uploads/nosuch", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"blobs/uploads/nosuch?digest={ABSENT}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "blobs/uploads/nosuch", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "manifests/v1", 405, "UNSUPPORTED"),
        ("GET", "nonsense", 404, "NAME_UNKNOWN"),
    ],
)
def test_a_refusal_has_its_status_and_code(
    registry: Registry, place: str, method: str, path: str, status: int, code: str
) -> None:
    answer = registry.request(method, f"/v2/{place}/{path}", b"{}" if method in ("PUT", "PATCH") else None)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    if code:
        assert answer.code == code
    else:
        assert answer.body == b""
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "manifests/v1", 404),
        ("GET", f"blobs/{ABSENT}", 404),
        ("GET", "tags/list", 404),
        ("GET", f"referrers/{ABSENT}", 400),
        ("POST", "blobs/uploads/", 400),
        ("PUT", "manifests/v1", 400),
    ],
)
@pytest.mark.parametrize("name", ["Upper/case", "a..b/c", "a/_b", "a/b-", "a___b/c", "a/" + "x" * 255])
def test_a_name_that_cannot_be_is_unknown_or_refused(
    registry: Registry, name: str, method: str, path: str, status: int
) -> None:
    answer = registry.request(method, f"/v2/{name}/{path}", b"" if method != "GET" else None)

    assert (answer.status, answer.code) == (status, "NAME_UNKNOWN" if status == 404 else "NAME_INVALID")


@pytest.mark.parametrize(
    ("raw", "media_type", "code"),
    [
        (b"", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"not json", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b'{"schemaVersion":2,"schemaVersion":2}', OCI_MANIFEST, "MANIFEST_INVALID"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, OCI_MANIFEST, "MANIFEST_INVALID"),
        (dump(image())[:-1] + b'\xff"}', OCI_MANIFEST, "MANIFEST_INVALID"),
        (dump(image()), OCI_INDEX, "MANIFEST_INVALID"),
        (dump(image(manifests=[])), OCI_MANIFEST, "MANIFEST_INVALID"),
        (dump(image(mediaType="text/plain")), "text/plain", "MANIFEST_INVALID"),
        (
            dump({"schemaVersion": 1, "fsLayers": []}),
            "application/vnd.docker.distribution.manifest.v1+json",
            "MANIFEST_INVALID",
        ),
        (dump(image(config=descriptor(size=3))), OCI_MANIFEST, "MANIFEST_INVALID"),
        (dump(image(layers=[descriptor(digest="sha256:bad")])), OCI_MANIFEST, "MANIFEST_INVALID"),
        (dump(image(layers=[descriptor(digest=ABSENT)])), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        (dump(image(config=descriptor(digest=ABSENT))), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        (
            dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(digest=ABSENT)]}),
            OCI_INDEX,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ],
)
def test_a_manifest_that_must_not_be_taken_is_refused(
    registry: Registry, place: str, raw: bytes, media_type: str, code: str
) -> None:
    answer = registry.put_manifest(place, "refused", raw, media_type)

    assert (answer.status, answer.code) == (400, code)
    assert registry.head(f"/v2/{place}/manifests/refused").status == 404


def test_every_missing_blob_is_named(registry: Registry, place: str) -> None:
    missing = [descriptor(digest="sha256:" + digit * 64, size=7) for digit in "123"]

    answer = registry.put_manifest(place, "missing", dump(image(layers=missing)))

    assert [error["code"] for error in answer.json["errors"]] == ["MANIFEST_BLOB_UNKNOWN"] * 3
    assert [error["detail"]["digest"] for error in answer.json["errors"]] == [each["digest"] for each in missing]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_bytes_that_are_not_the_manifests_are_refused(registry: Registry, place: str, algorithm: str) -> None:
    raw = dump(image())
    digest = digest_of(raw, algorithm)

    answer = registry.put_manifest(place, digest, raw + b"  ")

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.get(f"/v2/{place}/manifests/{digest}").status == 404


def test_a_manifest_over_four_mebibytes_is_too_large(registry: Registry, place: str) -> None:
    raw = dump(image())

    most = registry.put_manifest(place, "most", raw + b" " * (4 * 2**20 - len(raw)))
    over = registry.put_manifest(place, "over", raw + b" " * (4 * 2**20 + 1 - len(raw)))

    assert most.status == 201
    assert (over.status, over.code) == (413, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    ("tags", "status", "code"),
    [(["good", ".bad"], 400, "TAG_INVALID"), ([f"t{number}" for number in range(101)], 414, "UNSUPPORTED")],
    ids=["bad", "too many"],
)
def test_tags_are_taken_all_or_none(
    registry: Registry, repository: str, tags: list[str], status: int, code: str
) -> None:
    registry.push_blob(repository, EMPTY)
    raw = dump(image())

    answer = registry.put_manifest(repository, digest_of(raw), raw, tags=tags)

    assert (answer.status, answer.code) == (status, code)
    assert registry.get(f"/v2/{repository}/tags/list").json["tags"] == []
    assert registry.get(f"/v2/{repository}/manifests/{digest_of(raw)}").status == 404
