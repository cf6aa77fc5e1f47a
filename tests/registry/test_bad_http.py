"""What is no HTTP, or HTTP that two readers could read in two ways; nothing of it is carried out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.conformance.wire import OCI_MANIFEST, digest_of
from tests.registry.hostile import IMAGE, REPOSITORY, World, assert_sound, chunked, exchange, is_unread, request
from tests.server import running_server

PATH = f"/v2/{REPOSITORY}"
DELETE = b"DELETE %s/manifests/v1 HTTP/1.1\r\n" % PATH.encode()  # what must never be seen inside another request


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_server(tmp_path_factory.mktemp("http") / "data", {"TONNAGE_THREADS": "16"}) as server:
        yield World(server.host, server.admin_token, server.data)
        assert "Traceback" not in server.log, server.log


@pytest.fixture(scope="module")
def before(running: World) -> dict[str, object]:
    return running.state()


@pytest.fixture
def world(running: World, before: dict[str, object]) -> Iterator[World]:
    """It is at the end as it was before."""
    yield running
    assert running.state() == before


def usual(world: World) -> list[tuple[str, str]]:
    return [("Host", world.host), ("Authorization", f"Bearer {world.token}"), ("Content-Type", OCI_MANIFEST)]


BODIES: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "a negative length": ([("Content-Length", "-1")], IMAGE),
    "a length with a sign": ([("Content-Length", f"+{len(IMAGE)}")], IMAGE),
    "a length in other digits": ([("Content-Length", "\xb2")], IMAGE),
    "a length in hexadecimal": ([("Content-Length", "0x10")], IMAGE),
    "a length of 26 digits": ([("Content-Length", "9" * 26)], IMAGE),
    "a length of 2**63": ([("Content-Length", str(2**63))], IMAGE),
    "a length of 5000 digits": ([("Content-Length", "9" * 5000)], IMAGE),
    "an empty length": ([("Content-Length", "")], IMAGE),
    "a list of lengths": ([("Content-Length", f"{len(IMAGE)}, {len(IMAGE)}")], IMAGE),
    "the same length twice": ([("Content-Length", str(len(IMAGE)))] * 2, IMAGE),
    "two lengths": ([("Content-Length", "0"), ("Content-Length", str(len(IMAGE)))], IMAGE),
    "a length and chunks": ([("Content-Length", "5"), ("Transfer-Encoding", "chunked")], chunked(IMAGE)),
    "chunks and a length": ([("Transfer-Encoding", "chunked"), ("Content-Length", "5")], chunked(IMAGE)),
    "chunks, then gzip": ([("Transfer-Encoding", "chunked, gzip")], chunked(IMAGE)),
    "chunks twice": ([("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], chunked(IMAGE)),
    "chunks with another name": ([("Transfer-Encoding", "xchunked")], chunked(IMAGE)),
    "chunks behind a control character": ([("Transfer-Encoding", "\x0bchunked")], chunked(IMAGE)),
    "the identity": ([("Transfer-Encoding", "identity")], IMAGE),
    "chunks on a folded line": ([("Transfer-Encoding", "\r\n chunked")], chunked(IMAGE)),
    "a space before the colon": ([("Content-Length ", str(len(IMAGE)))], IMAGE),
}  # fmt: skip


@pytest.mark.parametrize(("ends", "body"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_body_whose_end_is_in_doubt_is_not_looked_for(
    world: World, method: str, ends: list[tuple[str, str]], body: bytes
) -> None:
    inside = DELETE + b"".join(f"{name}: {value}\r\n".encode() for name, value in usual(world)) + b"\r\n"

    answers = exchange(world.host, request(method, f"{PATH}/manifests/new", usual(world) + ends, body + inside))

    assert [answer.status in (400, 501) and is_unread(answer) for answer in answers] == [True]


CHUNKS = {
    "a size below zero": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size of 20 digits": b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n",
    "a size of 100,000 digits": b"0" * 100_000 + b"5\r\nhello\r\n0\r\n\r\n",
    "a line that ends with LF": b"5\nhello\n0\n\n",
    "no line end behind the bytes": b"5\r\nhello0\r\n\r\n",
    "more bytes than it says": b"5\r\nhello, world\r\n0\r\n\r\n",
    "an extension with a control character": b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
    "an extension of 100,000 characters": b"5;a=" + b"b" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a length behind the bytes": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "no end": b"5\r\nhello\r\n",
    "an end cut short": b"5\r\nhello\r\n0\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_broken_chunks_are_no_manifest_and_no_blob(world: World, body: bytes) -> None:
    headers = [*usual(world), ("Transfer-Encoding", "chunked")]
    for method, target in (
        ("PUT", f"{PATH}/manifests/new"),
        ("POST", f"{PATH}/blobs/uploads/?digest={digest_of(b'hello')}"),
    ):
        answers = exchange(world.host, request(method, target, headers, body))

        assert [(answer.status, answer.code) for answer in answers] == [(400, "SIZE_INVALID")]


@pytest.mark.parametrize("body", [b"5 ; a=b\r\nhello\r\n0\r\n\r\n", b'005;a="b;c"\r\nhello\r\n0\r\nX-A: b\r\n\r\n'])
def test_chunk_extensions_and_trailers_are_no_part_of_the_bytes(world: World, body: bytes) -> None:
    headers = [*usual(world), ("Transfer-Encoding", "chunked")]
    digest = digest_of(b"hello")

    (pushed,) = exchange(world.host, request("POST", f"{PATH}/blobs/uploads/?digest={digest}", headers, body))
    (gone,) = exchange(world.host, request("DELETE", f"{PATH}/blobs/{digest}", usual(world)))

    assert (pushed.status, gone.status) == (201, 202)


@pytest.mark.parametrize("missing", [1, 20])
def test_a_body_cut_short_is_no_manifest_even_if_it_is_json(world: World, missing: int) -> None:
    headers = [*usual(world), ("Content-Length", str(len(IMAGE) + missing))]

    (answer,) = exchange(world.host, request("PUT", f"{PATH}/manifests/new", headers, IMAGE))

    assert (answer.status, answer.code) == (400, "SIZE_INVALID")


LINES = {
    "HTTP/0.9": (b"GET /v2/\r\n\r\n", 400),
    "HTTP/2.0": (b"GET /v2/ HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no version": (b"GET /v2/ HTTP\r\nHost: localhost\r\n\r\n", 400),
    "a method in small letters": (b"get /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a method of 5000 letters": (b"G" * 5000 + b" /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a space in the path": (b"GET /v2/ a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "bytes in the path": (b"GET /v2/\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a NUL in the path": (b"GET /v2/\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a path of 100,000 characters": (b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "no request": (b"\0" * 1000 + b"\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x8a" * 500 + b"\r\n\r\n", 400),
    "two hosts": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "a header without a colon": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n", 400),
    "a header without a name": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", 400),
    "a NUL in a header": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400),
    "a CR in a header": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", 400),
    "a header of a mebibyte": (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2**20 + b"\r\n\r\n", 431),
    "200 headers": (b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    "10,000 headers": (b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
    "another expectation": (b"PUT /v2/ HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\n\r\n", 417),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), LINES.values(), ids=LINES.keys())
def test_what_is_no_request_is_refused_unread(world: World, data: bytes, status: int) -> None:
    (answer,) = exchange(world.host, data)

    assert is_unread(answer)
    assert answer.headers["Connection"] == "close"
    assert answer.status == status or (status, answer.status) == (431, 400)  # parsers count lines in two ways


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET", b"GET /v2/ HTTP/1.1\r\n", b"GET /v2/ HTTP/1.1\r\nHost: loc"])
def test_a_request_that_never_ends_is_not_answered(world: World, data: bytes) -> None:
    assert exchange(world.host, data) == []


@pytest.mark.parametrize(
    "target", ["http://localhost/v2/hostile/known/manifests/v1", "HTTP://evil.example/v2/hostile/known/manifests/v1"]
)
def test_a_whole_address_is_as_good_as_its_path(world: World, target: str) -> None:
    (answer,) = exchange(world.host, request("GET", target, usual(world)))

    assert (answer.status, answer.body) == (200, IMAGE)


@pytest.mark.parametrize(("target", "status"), [("/v2/", 200), (f"{PATH}/manifests/.bad", 400)])
def test_who_waits_to_be_asked_for_the_body_is_asked(world: World, target: str, status: int) -> None:
    headers = [*usual(world), ("Expect", "100-continue"), ("Content-Length", str(len(IMAGE)))]
    method = "GET" if status == 200 else "PUT"

    answers = exchange(world.host, request(method, target, headers, IMAGE))  # http.client reads over the 100

    assert [answer.status for answer in answers] == [status]
    assert_sound(answers[0], method)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "POST"])
def test_a_method_that_a_manifest_does_not_know_is_405(world: World, method: str) -> None:
    (answer,) = exchange(world.host, request(method, f"{PATH}/manifests/v1", usual(world)))

    assert_sound(answer, method)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert {"GET", "HEAD", "PUT", "DELETE"} <= set(answer.headers["Allow"].split(", "))
