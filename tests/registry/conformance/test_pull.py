"""Reading blobs: whole, in ranges, on conditions, and what is not there."""

from __future__ import annotations

import re
from email.parser import BytesParser

import pytest

from tests.registry.conformance.wire import ALGORITHMS, Registry, digest_of

BLOB = bytes(range(256)) * 8
DIGEST = digest_of(BLOB)


@pytest.fixture(scope="module")
def blob(registry: Registry) -> str:
    """The path of BLOB, 2048 bytes."""
    return f"/v2/conformance/ranges/blobs/{registry.push_blob('conformance/ranges', BLOB)}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_blob_is_not_there(registry: Registry, repository: str, method: str, algorithm: str) -> None:
    registry.push_blob(repository, b"{}")

    assert registry.request(method, f"/v2/{repository}/blobs/{digest_of(b'nowhere', algorithm)}").status == 404


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
        ("-5000", 0, 2047),
        ("0-0", 0, 0),
        ("0-99,50-149", 0, 149),  # overlapping
        ("100-199, 0-99", 0, 199),  # adjacent
        ("10-19,9000-", 10, 19),  # only one of them has a byte
    ],
)
def test_a_range_is_answered_with_exactly_it(registry: Registry, blob: str, spec: str, first: int, last: int) -> None:
    answer = registry.get(blob, {"Range": f"bytes={spec}"})

    assert (answer.status, answer.body) == (206, BLOB[first : last + 1])
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/2048"
    assert answer.headers["Docker-Content-Digest"] == DIGEST
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("spec", ["500-0", "5000-10000", "2048-", "-0", "3000-,4000-5000"])
def test_a_range_without_a_byte_is_refused(registry: Registry, blob: str, spec: str) -> None:
    answer = registry.get(blob, {"Range": f"bytes={spec}"})

    assert (answer.status, answer.code) == (416, "RANGE_INVALID")
    assert answer.headers["Content-Range"] == "bytes */2048"


@pytest.mark.parametrize(
    "header",
    [
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=0-9,x",
        "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 34, 2)),  # seventeen of them
        "bytes=0-,0-9",  # more bytes than there are
        "bytes=0-2047",
    ],
)
def test_the_whole_blob_answers_what_is_no_range_or_too_much(registry: Registry, blob: str, header: str) -> None:
    answer = registry.get(blob, {"Range": header})

    is_whole_range = header == "bytes=0-2047"
    assert (answer.status, answer.body) == (206 if is_whole_range else 200, BLOB)
    assert ("Content-Range" in answer.headers) == is_whole_range


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 9), (20, 29)],
        [(2000, 2047), (0, 0)],
        [(at, at) for at in range(0, 32, 2)],
    ],
    ids=["two", "backwards", "sixteen"],
)
def test_several_ranges_are_parts_of_one_body(registry: Registry, blob: str, ranges: list[tuple[int, int]]) -> None:
    answer = registry.get(blob, {"Range": "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)})

    assert answer.status == 206
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert "Content-Range" not in answer.headers
    assert answer.headers["Docker-Content-Digest"] == DIGEST
    kind = answer.headers["Content-Type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    assert parts_of(kind.partition("boundary=")[2], answer.body) == [
        (f"bytes {first}-{last}/2048", BLOB[first : last + 1]) for first, last in ranges
    ]


def parts_of(boundary: str, body: bytes) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of each part; the parts are split by hand, a mail parser would change their bytes."""
    before, *parts, end = re.split(rb"\r\n--" + re.escape(boundary.encode()), body)
    assert (before, end) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesParser().parsebytes(head, headersonly=True)
        assert headers["Content-Type"] == "application/octet-stream"
        found.append((headers["Content-Range"], data))
    return found


@pytest.mark.parametrize("spec", ["0-", "0-0", "-1", "0-0,5-9"])
def test_an_empty_blob_has_no_range(registry: Registry, repository: str, spec: str) -> None:
    path = f"/v2/{repository}/blobs/{registry.push_blob(repository, b'')}"

    answer = registry.get(path, {"Range": f"bytes={spec}"})

    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */0")


def test_head_tells_of_the_whole_blob(registry: Registry, blob: str) -> None:
    answer = registry.head(blob, {"Range": "bytes=0-9"})

    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "2048", b"")
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Range": f'"{DIGEST}"', "Range": "bytes=0-9"}, 206),
        ({"If-Range": '"sha256:other"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": f'W/"{DIGEST}"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": "Sat, 29 Oct 1994 19:43:31 GMT", "Range": "bytes=0-9"}, 200),
        ({"If-None-Match": f'"{DIGEST}"', "Range": "bytes=0-9"}, 304),
        ({"If-None-Match": f'"other", W/"{DIGEST}"'}, 304),
        ({"If-None-Match": DIGEST}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": f'"other", "{DIGEST}"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f'W/"{DIGEST}"'}, 412),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_decides(registry: Registry, blob: str, method: str, headers: dict[str, str], status: int) -> None:
    answer = registry.request(method, blob, headers=headers)

    assert answer.status == (200 if method == "HEAD" and status == 206 else status)
    if status == 304:
        assert answer.body == b""
        assert answer.headers["ETag"] == f'"{DIGEST}"'
        assert answer.headers["Docker-Content-Digest"] == DIGEST
        assert "max-age=31536000" in answer.headers["Cache-Control"]


def test_bytes_are_never_compressed(registry: Registry, blob: str) -> None:
    answer = registry.get(blob, {"Accept-Encoding": "gzip, br", "Accept": "text/html"})

    assert (answer.body, answer.headers["Content-Encoding"]) == (BLOB, None)


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_registry_is_here(registry: Registry, method: str, path: str) -> None:
    answer = registry.request(method, path)

    assert (answer.status, answer.body) == (200, b"{}" if method == "GET" else b"")
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_challenge_is_one_that_every_client_understands(registry: Registry, repository: str) -> None:
    registry.push_blob(repository, b"{}")

    for challenge in registry.challenges:
        parameters = challenge.removeprefix("Bearer ")
        assert not re.search("bearer|basic", parameters, re.IGNORECASE), "a parser takes the last of these words"
        assert re.fullmatch(r'\w+="[^"]*"(,\w+="[^"]*")*', parameters)
    stranger = Registry(registry.host).request("POST", f"/v2/{repository}/blobs/uploads/?mount={DIGEST}&from=a/b", b"")
    if registry.challenges:
        assert stranger.status == 401
        assert stranger.headers["WWW-Authenticate"].endswith(
            f'scope="repository:a/b:pull repository:{repository}:pull,push"'
        ) or stranger.headers["WWW-Authenticate"].endswith(
            f'scope="repository:{repository}:pull,push repository:a/b:pull"'
        )
    else:
        assert stranger.status == 202
