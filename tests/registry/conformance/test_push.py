"""Every way to bring a blob in, and what may be asked of it at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.client import Answer
from tests.registry.conformance.wire import ALGORITHMS, Registry, digest_of, path_of, slices, with_query

CHUNK = 1024
CONTENTS = {"random": os.urandom(3 * CHUNK + 17), "one byte": b"x", "emptyJSON": b"{}", "empty": b""}
Push = Callable[[Registry, str, bytes, str], Answer]


def post_only(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    return registry.post(repository, f"?digest={digest}", data)


def post_and_put(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    return registry.close_session(registry.open_session(repository), digest, data)


def one_chunk(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    location = registry.open_session(repository)
    sent = registry.patch(location, data, 0 if data else None)
    assert (sent.status, sent.headers["Range"]) == (202, f"0-{max(len(data) - 1, 0)}")
    return registry.close_session(sent.headers["Location"], digest)


def stream(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    location = registry.open_session(repository)
    sent = registry.request("PATCH", location, data, chunked=True)
    assert (sent.status, sent.headers["X-Upload-Offset"]) == (202, str(len(data)))
    return registry.close_session(sent.headers["Location"], digest)


def stream_in_put(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    location = with_query(registry.open_session(repository), digest=digest)
    return registry.request("PUT", location, data, chunked=True)


def chunks(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    location = registry.open_session(repository)
    for first, part in slices(data, CHUNK, 2 * CHUNK):
        sent = registry.patch(location, part, first)
        assert (sent.status, sent.headers["Range"]) == (202, f"0-{first + len(part) - 1}")
        location = sent.headers["Location"]
    return registry.close_session(location, digest)


def chunks_and_last_in_put(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    location = registry.open_session(repository)
    *parts, (last, end) = slices(data, CHUNK, 2 * CHUNK)
    for first, part in parts:
        sent = registry.patch(location, part, first)
        assert sent.status == 202
        location = sent.headers["Location"]
    return registry.close_session(location, digest, end, last)


def hinted(registry: Registry, repository: str, data: bytes, digest: str) -> Answer:
    opened = registry.post(repository, f"?digest-algorithm={digest.partition(':')[0]}")
    assert opened.status == 202
    sent = registry.patch(opened.headers["Location"], data)
    return registry.close_session(sent.headers["Location"], digest)


WHOLE: tuple[Push, ...] = (post_only, post_and_put, one_chunk, stream, stream_in_put, hinted)
IN_CHUNKS: tuple[Push, ...] = (chunks, chunks_and_last_in_put)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("push", "content"),
    [(push, content) for push in WHOLE for content in CONTENTS] + [(push, "random") for push in IN_CHUNKS],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_pushed_blob_is_there(registry: Registry, repository: str, push: Push, content: str, algorithm: str) -> None:
    data = CONTENTS[content]
    digest = digest_of(data, algorithm)

    done = push(registry, repository, data, digest)

    assert (done.status, path_of(done)) == (201, f"/v2/{repository}/blobs/{digest}")
    assert done.headers["Docker-Content-Digest"] == digest
    check_blob(registry, repository, digest, data, done.headers["Location"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "push", [post_only, post_and_put, one_chunk, chunks_and_last_in_put, stream], ids=lambda push: push.__name__
)
def test_bytes_of_another_digest_are_refused(registry: Registry, repository: str, push: Push, algorithm: str) -> None:
    digest = digest_of(b"something else", algorithm)

    refused = push(registry, repository, CONTENTS["random"], digest)

    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert registry.head(f"/v2/{repository}/blobs/{digest}").status == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_blob_is_mounted_from_where_it_is(
    registry: Registry, repository: str, other_repository: str, algorithm: str
) -> None:
    data = os.urandom(512)
    digest = registry.push_blob(other_repository, data, algorithm)

    mounted = registry.post(repository, f"?mount={digest}&from={other_repository}")

    assert (mounted.status, path_of(mounted)) == (201, f"/v2/{repository}/blobs/{digest}")
    assert mounted.headers["Docker-Content-Digest"] == digest
    check_blob(registry, repository, digest, data, mounted.headers["Location"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_mount_without_a_source_finds_what_the_token_may_read(
    registry: Registry, repository: str, other_repository: str, algorithm: str
) -> None:
    """A bearer token that names one repository must not open another, so there the mount becomes a session."""
    data = os.urandom(512)
    digest = registry.push_blob(other_repository, data, algorithm)

    answer = registry.post(repository, f"?mount={digest}")

    if registry.challenges:
        assert answer.status == 202
        answer = registry.with_whole_token().post(repository, f"?mount={digest}")
    assert (answer.status, path_of(answer)) == (201, f"/v2/{repository}/blobs/{digest}")
    check_blob(registry, repository, digest, data, answer.headers["Location"])


def test_a_mount_asks_for_a_token_that_covers_its_source(
    registry: Registry, repository: str, other_repository: str
) -> None:
    digest = registry.push_blob(other_repository, os.urandom(512))
    registry.push_blob(repository, b"{}")  # the client now holds a token for this repository alone
    before = len(registry.challenges)

    mounted = registry.post(repository, f"?mount={digest}&from={other_repository}")

    assert mounted.status == 201
    for challenge in registry.challenges[before:]:
        assert f"repository:{other_repository}:pull" in challenge
        assert f"repository:{repository}:pull,push" in challenge


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("source", ["&from=conformance/nowhere", "&from=library/Model.GGUF", ""])
def test_a_mount_that_finds_nothing_is_a_session(
    registry: Registry, repository: str, algorithm: str, source: str
) -> None:
    data = os.urandom(512)
    digest = digest_of(data, algorithm)

    opened = registry.post(repository, f"?mount={digest}{source}")

    assert opened.status == 202
    assert path_of(opened).startswith(f"/v2/{repository}/blobs/uploads/")
    done = registry.close_session(opened.headers["Location"], digest, data)
    assert done.status == 201
    check_blob(registry, repository, digest, data, done.headers["Location"])


def test_a_blob_elsewhere_is_not_a_blob_here(registry: Registry, repository: str, other_repository: str) -> None:
    digest = registry.push_blob(other_repository, os.urandom(100))
    registry.push_blob(repository, b"{}")

    assert registry.head(f"/v2/{repository}/blobs/{digest}").status == 404
    assert registry.get(f"/v2/{repository}/blobs/{digest}").code == "BLOB_UNKNOWN"


def test_a_digest_announced_in_the_post_opens_a_session_or_ends_the_push(registry: Registry, repository: str) -> None:
    data = os.urandom(700)
    digest = digest_of(data)

    opened = registry.post(repository, f"?digest={digest}")
    done = registry.close_session(opened.headers["Location"], digest, data)
    again = registry.post(repository, f"?digest={digest}")

    assert [answer.status for answer in (opened, done, again)] == [202, 201, 201]
    assert path_of(again) == f"/v2/{repository}/blobs/{digest}"


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?digest=sha256:bad", b"x", 400, "DIGEST_INVALID"),
        ("?digest=md9:xyz", b"", 400, "DIGEST_INVALID"),
        ("?digest-algorithm=md5", b"", 400, "DIGEST_INVALID"),
        ("?mount=sha256:bad", b"", 400, "DIGEST_INVALID"),
        ("", b"x" * (64 * 2**10 + 1), 400, "SIZE_INVALID"),
    ],
)
def test_a_post_that_cannot_be_is_refused(
    registry: Registry, repository: str, query: str, body: bytes, status: int, code: str
) -> None:
    answer = registry.post(repository, query, body)

    assert (answer.status, answer.code) == (status, code)


def test_a_small_body_of_a_plain_post_is_ignored(registry: Registry, repository: str) -> None:
    opened = registry.post(repository, body=b"not wanted")

    assert (opened.status, opened.headers["X-Upload-Offset"]) == (202, "0")


def test_a_session_opens_without_the_final_slash(registry: Registry, repository: str) -> None:
    assert registry.request("POST", f"/v2/{repository}/blobs/uploads", b"").status == 202


def check_blob(registry: Registry, repository: str, digest: str, data: bytes, location: str) -> None:
    """HEAD, GET, and GET of the Location all tell of exactly `data`."""
    path = f"/v2/{repository}/blobs/{digest}"
    for method, url, body in (("HEAD", path, b""), ("GET", path, data), ("GET", location, data)):
        answer = registry.request(method, url)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers.get_all("Content-Length") == [str(len(data))]
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Location"].partition("?")[0] == path, "the ollama client asks there for its ranges"
        assert "Content-Encoding" not in answer.headers
