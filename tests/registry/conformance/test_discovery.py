"""Lists: tags, referrers and repositories, whole, filtered and page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import Answer
from tests.registry.conformance.data_sets import EMPTY, DataSet, push_set
from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, Registry, digest_of, dump

TAGS = ["v1", "V1", "_", "a-b", "a.b", "a_b", "latest", "0", "9.9", "Z", "t" * 128]


@pytest.fixture(scope="module")
def tagged(registry: Registry) -> str:
    """A repository with TAGS, given in no order."""
    data = DataSet()
    data.image(*TAGS, config=data.blob(b"{}", EMPTY), layers=[])
    push_set(registry, "conformance/tagged", data)
    return "conformance/tagged"


def pages(registry: Registry, path: str) -> Iterator[Answer]:
    """Every page, as a client follows the links."""
    for _ in range(50):
        answer = registry.get(path)
        assert answer.status == 200, answer.body
        yield answer
        if "Link" not in answer.headers:
            return
        match = re.fullmatch(r'<(/v2/[^>]+)>; rel="next"', answer.headers["Link"])
        assert match
        path = match[1]
    raise AssertionError("the links never end")


def test_nothing_was_pushed_yet(registry: Registry, repository: str) -> None:
    tags = registry.get(f"/v2/{repository}/tags/list")
    referrers = registry.get(f"/v2/{repository}/referrers/{digest_of(b'anything')}")

    assert (tags.status, tags.code) == (404, "NAME_UNKNOWN")
    assert (referrers.status, referrers.headers["Content-Type"]) == (200, OCI_INDEX)
    assert referrers.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def test_a_repository_without_a_tag_has_an_empty_list(registry: Registry, repository: str) -> None:
    registry.push_blob(repository, b"{}")

    assert registry.get(f"/v2/{repository}/tags/list").json == {"name": repository, "tags": []}


@pytest.mark.parametrize("n", [1, 2, len(TAGS) // 2, len(TAGS) - 1, len(TAGS)])
def test_pages_of_tags_join_to_the_list(registry: Registry, tagged: str, n: int) -> None:
    found = [page.json["tags"] for page in pages(registry, f"/v2/{tagged}/tags/list?n={n}")]

    assert [len(tags) for tags in found[:-1]] == [n] * (len(found) - 1)
    assert [tag for tags in found for tag in tags] == sorted(TAGS)
    assert len(found) == -(-len(TAGS) // n)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", sorted(TAGS)),
        ("?n=0", []),
        ("?n=99999999", sorted(TAGS)),
        ("?last=a", [tag for tag in sorted(TAGS) if tag > "a"]),
        ("?last=a.b", [tag for tag in sorted(TAGS) if tag > "a.b"]),
        ("?n=2&last=Z", ["_", "a-b"]),
        ("?last=zzz", []),
        ("?last=%00", sorted(TAGS)),
        ("?last=%C3%BF", []),
    ],
)
def test_tags_after_one(registry: Registry, tagged: str, query: str, expected: list[str]) -> None:
    answer = registry.get(f"/v2/{tagged}/tags/list{query}")

    assert (answer.status, answer.json["tags"]) == (200, expected)
    assert ("Link" in answer.headers) == (query == "?n=2&last=Z")


def artifacts(count: int, *, filler: int = 4) -> tuple[dict[str, Any], DataSet]:
    """A subject that nobody pushes, and artifacts of two kinds that refer to it."""
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(f"{count} {filler}".encode()), "size": 9}
    data = DataSet()
    for number in range(count):
        data.artifact(
            artifact_type=f"application/vnd.kind{number % 2}+json",
            layers=[],
            subject=subject,
            annotations={"example": f"{number}" + "x" * filler},
        )
    return subject, data


def test_referrers_are_exactly_those_that_were_pushed(
    registry: Registry, repository: str, other_repository: str
) -> None:
    subject, data = artifacts(5)
    push_set(registry, repository, data)
    push_set(registry, repository, data)
    registry.put_manifest(repository, "also-by-tag", data.manifests[0].raw)
    path = f"referrers/{subject['digest']}"

    listed = registry.get(f"/v2/{repository}/{path}").json["manifests"]
    filtered = registry.get(f"/v2/{repository}/{path}?artifactType=application/vnd.kind1+json").json["manifests"]

    assert listed == data.referrers(subject["digest"])
    assert [len(each["annotations"]) for each in listed] == [1] * 5
    assert len(filtered) == 2
    assert registry.get(f"/v2/{other_repository}/{path}").json["manifests"] == []
    assert registry.get(f"/v2/{repository}/referrers/{digest_of(b'other')}").json["manifests"] == []


@pytest.mark.parametrize("query", ["", "?artifactType=" + quote("application/vnd.kind0+json", safe="")])
def test_an_index_of_referrers_stays_below_four_mebibytes(registry: Registry, repository: str, query: str) -> None:
    subject, data = artifacts(6, filler=1_500_000)
    push_set(registry, repository, data)
    expected = [each for each in data.referrers(subject["digest"]) if not query or "kind0" in each["artifactType"]]

    answers = list(pages(registry, f"/v2/{repository}/referrers/{subject['digest']}{query}"))

    assert all(len(answer.body) < 4 * 2**20 for answer in answers)
    assert [answer.headers["Content-Type"] for answer in answers] == [OCI_INDEX] * len(answers)
    assert [answer.headers["OCI-Filters-Applied"] for answer in answers] == (
        ["artifactType" if query else None] * (2 if query else 3)
    )
    assert [each for answer in answers for each in answer.json["manifests"]] == expected


def test_an_index_that_refers_needs_no_type(registry: Registry, repository: str) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"of an index"), "size": 9}
    raw = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject})
    put = registry.put_manifest(repository, digest_of(raw), raw, OCI_INDEX)

    listed = registry.get(f"/v2/{repository}/referrers/{subject['digest']}").json["manifests"]

    assert put.headers["OCI-Subject"] == subject["digest"]
    assert listed == [{"mediaType": OCI_INDEX, "digest": digest_of(raw), "size": len(raw)}]


def test_the_tag_of_older_clients_is_an_ordinary_one(registry: Registry, repository: str) -> None:
    tag = digest_of(b"subject").replace(":", "-")
    raw = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

    assert registry.put_manifest(repository, tag, raw, OCI_INDEX).status == 201
    assert registry.get(f"/v2/{repository}/tags/list").json["tags"] == [tag]


def test_the_catalog_lists_repositories_in_pages(registry: Registry) -> None:
    """What is listed is what the principal may read, whatever repositories its token names."""
    names = push_catalog(registry)

    assert catalog_of(registry) == names


def test_the_catalog_of_a_whole_token(registry: Registry) -> None:
    names = push_catalog(registry)

    assert catalog_of(registry.with_whole_token()) == names


def push_catalog(registry: Registry) -> list[str]:
    names = [f"catalog{letter}/model" for letter in "abcde"]
    for name in reversed(names):
        raw = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
        assert registry.put_manifest(name, "v1", raw, OCI_INDEX).status == 201
    return names


def catalog_of(registry: Registry) -> list[str]:
    """The repositories of `push_catalog` that are listed."""
    found = [page.json["repositories"] for page in pages(registry, "/v2/_catalog?n=2&last=catalog")]
    assert [len(page) for page in found[:-1]] == [2] * (len(found) - 1)
    assert registry.get("/v2/_catalog?n=1001").code == "PAGINATION_NUMBER_INVALID"
    assert registry.get("/v2/_catalog?n=0").json == {"repositories": []}
    return [name for page in found for name in page if name.startswith("catalog")]
