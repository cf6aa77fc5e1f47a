"""Upload sessions: chunks out of order, refusals that leave the session alive, status and cancellation."""

from __future__ import annotations

import os

import pytest

from tests.client import Answer
from tests.registry.conformance.wire import ALGORITHMS, Registry, digest_of, slices, with_query

DATA = os.urandom(4 * 1024)
PARTS = slices(DATA, 1024, 3 * 1024)


def check_status(registry: Registry, url: str, offset: int) -> str:
    """The session answers for itself: 204 with how far it has come; its Location."""
    status = registry.get(url)
    assert (status.status, status.body) == (204, b"")
    assert status.headers["Range"] == f"0-{max(offset - 1, 0)}"
    assert status.headers["X-Upload-Offset"] == str(offset)
    assert registry.head(url).status == 204
    return str(status.headers["Location"])


def check_refused(answer: Answer, offset: int) -> None:
    assert answer.status == 416
    assert answer.headers["Range"] == f"0-{max(offset - 1, 0)}"
    assert answer.headers["Location"]
    assert answer.code == "BLOB_UPLOAD_INVALID"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_chunks_out_of_order_never_hurt(registry: Registry, repository: str, algorithm: str) -> None:
    location = registry.open_session(repository)
    for number, (first, part) in enumerate(PARTS):
        ahead_at, ahead = PARTS[number + 1] if number + 1 < len(PARTS) else PARTS[0]
        check_refused(registry.patch(location, ahead, ahead_at), first)
        location = check_status(registry, location, first)
        sent = registry.patch(location, part, first)
        assert (sent.status, sent.headers["Range"]) == (202, f"0-{first + len(part) - 1}")
        location = sent.headers["Location"]

    digest = digest_of(DATA, algorithm)
    assert registry.close_session(location, digest).status == 201
    assert registry.get(f"/v2/{repository}/blobs/{digest}").body == DATA


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_last_chunk_leaves_the_session(registry: Registry, repository: str, algorithm: str) -> None:
    digest = digest_of(DATA, algorithm)
    location = registry.open_session(repository)
    *parts, (last, end) = PARTS
    for first, part in parts:
        ahead_at, ahead = PARTS[-1] if first else PARTS[1]
        check_refused(registry.patch(location, ahead, ahead_at), first)
        sent = registry.patch(check_status(registry, location, first), part, first)
        assert sent.status == 202
        location = sent.headers["Location"]

    check_refused(registry.close_session(location, digest, PARTS[0][1], 0), last)
    location = check_status(registry, with_query(location, digest=digest), last)

    assert registry.close_session(location, digest, end, last).status == 201
    assert registry.get(f"/v2/{repository}/blobs/{digest}").body == DATA


def test_an_old_address_of_a_session_goes_on_working(registry: Registry, repository: str) -> None:
    oldest = registry.open_session(repository)
    first_at, first = PARTS[0]
    check_refused(registry.patch(oldest, PARTS[1][1], PARTS[1][0]), 0)
    sent = registry.patch(oldest, first, first_at)
    assert (sent.status, sent.headers["Range"]) == (202, f"0-{len(first) - 1}")

    check_refused(registry.patch(oldest, first, first_at), len(first))
    check_status(registry, oldest, len(first))

    for at, part in PARTS[1:]:
        sent = registry.patch(sent.headers["Location"], part, at)
        assert (sent.status, sent.headers["Range"]) == (202, f"0-{at + len(part) - 1}")
    assert registry.close_session(sent.headers["Location"], digest_of(DATA)).status == 201


@pytest.mark.parametrize("text", ["nonsense", "5-1", "-5", "0-", "0-99999999999999999999999", "0-0,2-3", "1-2-3"])
def test_a_content_range_that_is_none_is_refused(registry: Registry, repository: str, text: str) -> None:
    location = registry.open_session(repository)

    answer = registry.request("PATCH", location, b"x", {"Content-Range": text})

    check_refused(answer, 0)
    check_status(registry, location, 0)


@pytest.mark.parametrize("text", ["0-4095", "bytes 0-4095/4096", "bytes 0-4095/*", "bytes=0-4095"])
def test_a_content_range_may_be_written_as_http_does(registry: Registry, repository: str, text: str) -> None:
    answer = registry.request("PATCH", registry.open_session(repository), DATA, {"Content-Range": text})

    assert (answer.status, answer.headers["Range"]) == (202, "0-4095")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("said", ["0-9", "0-5000"])
def test_a_body_of_another_length_is_forgotten(
    registry: Registry, repository: str, method: str, said: str, chunked: bool
) -> None:
    location = registry.open_session(repository)
    url = with_query(location, digest=digest_of(DATA))

    answer = registry.request(method, url, DATA, {"Content-Range": said}, chunked=chunked)

    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    check_status(registry, location, 0)
    assert registry.close_session(location, digest_of(DATA), DATA).status == 201


def test_an_empty_patch_changes_nothing(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    assert registry.patch(location, DATA).status == 202

    assert registry.patch(location, b"").status == 202

    check_status(registry, location, len(DATA))


def test_patches_without_a_range_are_appended(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    for _, part in PARTS:
        assert registry.patch(location, part).status == 202

    assert registry.close_session(location, digest_of(DATA)).status == 201


@pytest.mark.parametrize("digest", [None, "", "sha256:bad", "md9:xyz", "sha256:" + "A" * 64, "sha1:" + "0" * 40])
def test_a_digest_that_is_none_keeps_the_session(registry: Registry, repository: str, digest: str | None) -> None:
    location = registry.open_session(repository)
    assert registry.patch(location, DATA[:1000]).status == 202

    url = location if digest is None else with_query(location, digest=digest)
    refused = registry.request("PUT", url, DATA[1000:])

    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    check_status(registry, location, 1000)
    assert registry.close_session(location, digest_of(DATA), DATA[1000:]).status == 201


def test_a_digest_that_does_not_hold_keeps_a_session_whose_bytes_are_known(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    assert registry.patch(location, DATA).status == 202

    assert registry.close_session(location, digest_of(b"mistyped")).code == "DIGEST_INVALID"

    check_status(registry, location, len(DATA))
    assert registry.close_session(location, digest_of(DATA)).status == 201


def test_a_digest_that_does_not_hold_ends_a_session_with_a_body(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)

    assert registry.close_session(location, digest_of(b"other"), DATA).code == "DIGEST_INVALID"

    assert registry.get(location).code == "BLOB_UPLOAD_UNKNOWN"


def test_a_finished_push_may_be_finished_again(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    assert registry.close_session(location, digest_of(DATA), DATA).status == 201

    again = registry.close_session(location, digest_of(DATA))
    as_another = registry.close_session(location, digest_of(b"other"))

    assert (again.status, as_another.status) == (201, 404)
    assert registry.get(location).status == 404


def test_parameters_of_other_registries_are_ignored(registry: Registry, repository: str) -> None:
    location = with_query(registry.open_session(repository), _state="abc", etag="d41d8cd98f00b204e9800998ecf8427e-2")

    assert registry.patch(location, DATA).status == 202
    assert registry.close_session(location, digest_of(DATA)).status == 201


def test_a_cancelled_session_is_gone(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)
    registry.patch(location, DATA)

    cancelled = registry.request("DELETE", location, b"")

    assert (cancelled.status, cancelled.body) == (204, b"")
    for method in ("DELETE", "GET", "PATCH", "PUT"):
        answer = registry.request(method, with_query(location, digest=digest_of(DATA)), b"")
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN"), method


def test_a_session_belongs_to_its_repository(registry: Registry, repository: str, other_repository: str) -> None:
    location = registry.open_session(repository)
    registry.push_blob(other_repository, b"{}")

    elsewhere = registry.get(location.replace(repository, other_repository))

    assert (elsewhere.status, elsewhere.code) == (404, "BLOB_UPLOAD_UNKNOWN")
