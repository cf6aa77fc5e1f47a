"""Names, tags, digests, pages, ranges and callers that cannot be; afterwards everything is as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client import Answer, Client
from tests.registry.conformance.wire import digest_of
from tests.registry.hostile import BLOB, EMPTY, IMAGE, REPOSITORY, World, assert_sound, exchange, request
from tests.server import running_server

PATH = f"/v2/{REPOSITORY}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_server(tmp_path_factory.mktemp("bad") / "data", {"TONNAGE_THREADS": "16"}) as server:
        yield World(server.host, server.admin_token, server.data)
        assert "Traceback" not in server.log, server.log


@pytest.fixture(scope="module")
def before(world: World) -> dict[str, object]:
    return world.state()


@pytest.fixture
def client(world: World, before: dict[str, object]) -> Iterator[Client]:
    """Of a world that is at the end as it was before."""
    yield Client(world.host, world.token)
    assert world.state() == before


def send(world: World, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> list[Answer]:
    """A request with what every client says, these headers, and exactly this behind them."""
    usual = [("Host", world.host), ("Authorization", f"Bearer {world.token}")]
    return exchange(world.host, request(method, target, [*usual, *headers], body), (method, "GET"))


NAMES = (
    "hostile/..", "hostile/../known", "hostile%2f..%2fknown", "%2e%2e/known", "hostile/known%00", "hostile/%00", "%",
    "hostile/%zz", "hostile/%252e%252e", "hostile%252fknown", "hostile/known%20", "hostile/k%c3%a9", "hostile/%ff",
    "hostile/%f0%9f%98%80", "hostile/%ed%a0%80", "Hostile/known", "hostile/known.", "hostile/kn..own", "x" * 256,
    "a/" * 127 + "bb", "hostile/_known", "hostile/kn___own", "hostile/kn._own", "hostile:50/known", "~", "*",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_is_unknown_or_refused(world: World, client: Client, name: str) -> None:
    length = ("Content-Length", str(len(IMAGE)))
    for method, path, status, code in (
        ("GET", "manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "tags/list", 404, "NAME_UNKNOWN"),
        ("GET", f"blobs/{digest_of(EMPTY)}", 404, "NAME_UNKNOWN"),
        ("GET", f"referrers/{digest_of(EMPTY)}", 400, "NAME_INVALID"),
        ("PUT", "manifests/v1", 400, "NAME_INVALID"),
        ("POST", "blobs/uploads/", 400, "NAME_INVALID"),
        ("DELETE", "manifests/v1", 400, "NAME_INVALID"),
    ):
        answer = send(world, method, f"/v2/{name}/{path}", length, body=IMAGE)[0]
        assert (answer.status, answer.code) == (status, code), path


TAGS = (".x", "-x", "t" * 129, "a%00", "a%20", "%c3%a9", "%ff", "a%2bb", "a@b", "..", "%2e", "a,b", "%", "a;b", "~")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_that_cannot_be_is_unknown_or_refused(world: World, client: Client, tag: str) -> None:
    length, query = ("Content-Length", str(len(IMAGE))), f"tag=fine&tag={tag}"
    got = send(world, "GET", f"{PATH}/manifests/{tag}")[0]
    gone = send(world, "DELETE", f"{PATH}/manifests/{tag}")[0]
    put = send(world, "PUT", f"{PATH}/manifests/{tag}", length, body=IMAGE)[0]
    beside = send(world, "PUT", f"{PATH}/manifests/{digest_of(IMAGE)}?{query}", length, body=IMAGE)[0]

    assert (got.status, got.code) == (gone.status, gone.code) == (404, "MANIFEST_UNKNOWN")
    assert (put.status, put.code) == (beside.status, beside.code) == (400, "TAG_INVALID")


DIGESTS = (
    digest_of(EMPTY).upper(), "SHA256:" + digest_of(EMPTY)[7:], "sha256:" + "A" * 64, "sha256:" + "0" * 63, ":",
    "sha256:" + "0" * 65, "sha256:" + "g" * 64, "sha512:" + "0" * 64, "md5:" + "0" * 32, "blake3:" + "0" * 64,
    "sha256:", "sha256:sha256:" + "0" * 64, digest_of(EMPTY) + "%00", digest_of(EMPTY) + "%20", "sha256%3a",
    "sha256:%d9%a3" + "0" * 63, "sha256:" + "0" * 4000, "x" * 4000 + ":0",
)  # fmt: skip


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_digest_that_cannot_be_is_unknown_or_refused(world: World, client: Client, digest: str) -> None:
    length = ("Content-Length", str(len(IMAGE)))
    for method, path, status, code in (
        ("GET", f"blobs/{digest}", 404, "BLOB_UNKNOWN"),
        ("DELETE", f"blobs/{digest}", 404, "BLOB_UNKNOWN"),
        ("GET", f"manifests/{digest}", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", f"manifests/{digest}", 404, "MANIFEST_UNKNOWN"),
        ("PUT", f"manifests/{digest}", 400, "DIGEST_INVALID"),
        ("GET", f"referrers/{digest}", 400, "DIGEST_INVALID"),
        ("POST", f"blobs/uploads/?digest={digest}", 400, "DIGEST_INVALID"),
        ("POST", f"blobs/uploads/?mount={digest}&from={REPOSITORY}", 400, "DIGEST_INVALID"),
        ("PUT", f"{world.target.removeprefix(PATH + '/')}?digest={digest}", 400, "DIGEST_INVALID"),
    ):
        answer = send(world, method, f"{PATH}/{path}", length, body=IMAGE)[0]
        assert (answer.status, answer.code) == (status, code), path


def test_a_digest_algorithm_that_nobody_knows_opens_no_session(world: World, client: Client) -> None:
    for algorithm in ("md5", "", "SHA256", "sha256,sha512", "%00", "x" * 4000):
        answer = client.request("POST", f"{PATH}/blobs/uploads/?digest-algorithm={algorithm}")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "count", ["", "-1", "-0", "+1", "1.0", "1e3", "0x1", "%201", "1_0", "%c2%b2", "%d9%a3", "NaN", "1;n=2"]
)
def test_a_page_size_that_is_no_number_is_refused(client: Client, count: str) -> None:
    for path in (f"{PATH}/tags/list", "/v2/_catalog"):
        answer = client.request("GET", f"{path}?n={count}")
        assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


@pytest.mark.parametrize("count", ["9" * 18, "9" * 19, "9" * 40, "9" * 5000, "0" * 5000 + "7"])
def test_a_page_of_any_size_is_one_of_ours_at_most(client: Client, count: str) -> None:
    tags = client.request("GET", f"{PATH}/tags/list?n={count}")
    catalog = client.request("GET", f"/v2/_catalog?n={count}")

    assert (tags.status, len(tags.json["tags"])) == (200, 3)
    assert catalog.status == (200 if count.endswith("7") else 400)


@pytest.mark.parametrize(
    ("chunk", "status", "code"),
    [
        ("0-1", 416, "BLOB_UPLOAD_INVALID"),
        ("4-5", 416, "BLOB_UPLOAD_INVALID"),
        ("4-3", 416, "BLOB_UPLOAD_INVALID"),
        ("3-", 416, "BLOB_UPLOAD_INVALID"),
        ("-4", 416, "BLOB_UPLOAD_INVALID"),
        ("three-four", 416, "BLOB_UPLOAD_INVALID"),
        ("", 416, "BLOB_UPLOAD_INVALID"),
        ("3-4,3-4", 416, "BLOB_UPLOAD_INVALID"),
        ("3-9223372036854775808", 416, "BLOB_UPLOAD_INVALID"),
        ("9" * 19 + "-" + "9" * 19, 416, "BLOB_UPLOAD_INVALID"),
        ("3-" + "9" * 5000, 416, "BLOB_UPLOAD_INVALID"),
        ("\xb3-4", 416, "BLOB_UPLOAD_INVALID"),
        ("3-9223372036854775807", 400, "SIZE_INVALID"),
        ("3-5", 400, "SIZE_INVALID"),
        ("3-3", 400, "SIZE_INVALID"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_chunk_that_does_not_fit_leaves_the_session(
    world: World, client: Client, method: str, chunk: str, status: int, code: str
) -> None:
    headers = [("Content-Range", chunk), ("Content-Length", "2")]

    answer = send(world, method, f"{world.target}?digest={digest_of(b'abcde')}", *headers, body=b"de")[0]

    assert (answer.status, answer.code) == (status, code)
    if status == 416:
        assert (answer.headers["Range"], answer.headers["X-Upload-Offset"]) == ("0-2", "3")


@pytest.mark.parametrize(
    "header", ["bytes=1-0", "bytes=2048-", "bytes=-0", "bytes=9223372036854775807-", "bytes=" + "9-8," * 3000]
)
def test_a_range_without_a_byte_is_416(client: Client, header: str) -> None:
    answer = client.request("GET", f"{PATH}/blobs/{digest_of(BLOB)}", headers={"Range": header})

    assert (answer.status, answer.code, answer.headers["Content-Range"]) == (416, "RANGE_INVALID", "bytes */2048")
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "header", ["=", "bytes", "bytes=", "bytes=-", "bytes=0-0x", "lines=0-1", "bytes=0-,0-", "bytes=" + "0-1," * 3000]
)
def test_a_range_that_is_none_or_too_much_is_the_whole_blob(client: Client, header: str) -> None:
    answer = client.request("GET", f"{PATH}/blobs/{digest_of(BLOB)}", headers={"Range": header})

    assert (answer.status, answer.body) == (200, BLOB)


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic \xff", "Basic eDp5", "x", "a:b", "Bearer " + "e" * 9000]
)
def test_credentials_that_prove_nothing_are_challenged(world: World, client: Client, value: str) -> None:
    for method, path in (("GET", "tags/list"), ("PUT", "manifests/v1"), ("DELETE", "manifests/v1")):
        headers = [("Host", world.host), ("Authorization", value), ("Content-Length", str(len(IMAGE)))]
        answer = exchange(world.host, request(method, f"{PATH}/{path}", headers, IMAGE))[0]
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.headers.get_all("WWW-Authenticate") is not None


@pytest.mark.parametrize(
    "headers",
    [[("Host", "evil.example")], [("Host", "a b")], [("Host", "[::1")], [("Host", "\xff")]]
    + [[("Host", "localhost"), ("Origin", origin)] for origin in ("http://evil.example", "null", "http://[", "\xff")],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_strange_page_is_denied_in_the_words_of_the_spec(
    world: World, client: Client, headers: list[tuple[str, str]], method: str
) -> None:
    sent = [*headers, ("Authorization", f"Bearer {world.token}"), ("Content-Length", "2")]

    answer = exchange(world.host, request(method, f"{PATH}/manifests/v1", sent, b"{}"), (method,))[0]

    assert_sound(answer, method)
    assert answer.status == 403
    assert method == "HEAD" or answer.code == "DENIED"
