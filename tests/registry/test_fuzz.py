"""Whatever is sent to /v2 is answered in the spec's words, and a refusal changes nothing.

TONNAGE_FUZZ_EXAMPLES=5000 looks further than CI does, somewhere else each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from tests.client import Answer, Client
from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, digest_of
from tests.registry.hostile import (
    ABSENT,
    BLOB,
    EMPTY,
    IMAGE,
    INDEX,
    REFERRER,
    REPOSITORY,
    World,
    assert_sound,
    chunked,
    exchange,
    is_unread,
    request,
)
from tests.server import running_server

_EXAMPLES = int(os.environ.get("TONNAGE_FUZZ_EXAMPLES", "0"))


def budget(examples: int) -> settings:
    """The same bounded look each time, unless a longer one is asked for."""
    return settings(
        max_examples=_EXAMPLES or examples,
        derandomize=not _EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The known repository; at the end the server must not have met an error that it did not expect."""
    with running_server(tmp_path_factory.mktemp("fuzz") / "data", {"TONNAGE_THREADS": "16"}) as server:
        yield World(server.host, server.admin_token, server.data)
        assert "Traceback" not in server.log, server.log


# What stands in paths, queries and headers where something sensible should.

ODD_COMPONENTS = (
    "", ".", "..", "...", "%2e%2e", "%2f", "..%2f..", "%00", "a%00", "%", "%zz", "%0a", "a%0d%0a", "%ff", "%c3%a9",
    "%ed%a0%80", "%F0%9F%98%80", "%252e%252e", "Upper", "a" * 256, "a__b", "a___b", "a..b", "-a", "a-", "_catalog",
    "_oci", "blobs", "uploads", "manifests", "tags", "list", "referrers", "~", "a+b", "a;b", "a:b", "@", "*", "\\",
    "a#b", "a&b=c", "http:", "\xe9",
)  # fmt: skip
ODD_NUMBERS = (
    "", "-1", "-0", "+1", "1e3", "0x1", "1.0", " 1", "1 ", "1_0", "00", "\xb2", "NaN", "null", "18446744073709551616",
    "9223372036854775807", "9223372036854775808", "9" * 40, "9" * 5000,
)  # fmt: skip
components = st.sampled_from(["hostile", "known", "a", "b1"]) | st.sampled_from(ODD_COMPONENTS)
names = (
    st.sampled_from([REPOSITORY, REPOSITORY, ABSENT])
    | st.lists(components, max_size=4).map("/".join)
    | st.text("ab09._-/%:A", max_size=30)
)
known_digests = st.sampled_from([digest_of(data) for data in (EMPTY, BLOB, IMAGE, INDEX, REFERRER)])
digests = known_digests | st.one_of(
    st.builds(
        "{}:{}".format,
        st.sampled_from(["sha256", "sha512", "SHA256", "sha1", "md5", "blake3", "sha256+b64u", "", "x" * 200]),
        st.text("0123456789abcdefABCDEFg%_=-:", max_size=130),
    ),
    st.builds(lambda size, digit: "sha256:" + digit * size, st.integers(62, 66), st.sampled_from("0aAfFg")),
    known_digests.map(str.upper),
    known_digests.map(lambda digest: digest.replace(":", "%3A")),
)
tags = st.sampled_from(["v1", "index", "referrer", "absent", ".bad", "t" * 128, "t" * 129, "\xe9"])
references = digests | tags | st.sampled_from(ODD_COMPONENTS)
odd_text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


PRINTABLE = "".join(map(chr, range(33, 127)))  # what HTTP takes for a target, be it as mad as it will
SHAPES = (
    "{name}/manifests/{reference}", "{name}/blobs/{reference}", "{name}/referrers/{reference}", "{name}/tags/list",
    "{name}/blobs/uploads/", "{name}/blobs/uploads", "{name}/blobs/uploads/{reference}", "{{target}}",
    "{name}/{reference}", "{name}", "_catalog", "", "_oci/{name}", "../api/tags",
)  # fmt: skip


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A path below /v2/ with its query. `{target}` is the session to aim at."""
    name, reference = draw(names), draw(references)
    path = draw(st.sampled_from(SHAPES)).format(name=name, reference=reference)
    keys = st.sampled_from(
        ["n", "last", "digest", "mount", "from", "artifactType", "digest-algorithm", "tag", "ns", "_state", "%00", ""]
    )
    values = digests | tags | names | st.sampled_from(ODD_NUMBERS) | odd_text
    query = "&".join(f"{key}={value}" for key, value in draw(st.lists(st.tuples(keys, values), max_size=3)))
    tail = draw(st.sampled_from(["", "", "", "/", "//", "?", "#", "%20"]))
    return quote(f"/v2/{path}{tail}" + (f"?{query}" if query else ""), safe=PRINTABLE)


ODD_HEADERS: dict[str, tuple[str, ...]] = {
    "Range": ("bytes=0-1", "bytes=1-0", "bytes=-0", "bytes=" + "0-1," * 1000, "bytes=0-0,9-9,3-4", "lines=1-2", "="),
    "Content-Range": ("3-4", "0-1", "bytes 3-4/*", "4-3", "3-", "3-9223372036854775807", "9" * 19 + "-" + "9" * 19),
    "Content-Type": (OCI_MANIFEST, OCI_INDEX, "text/html", "a/b; charset=\xff", "x" * 300, "multipart/form-data"),
    "Accept": ("*/*", "text/html", "\xff", ", " * 1000, "application/json;q=nan"),
    "If-None-Match": ("*", '"', "W/", "x," * 1000, f'"{digest_of(BLOB)}"', digest_of(IMAGE)),
    "If-Match": ("*", '"', "x", f'"{digest_of(BLOB)}"', "," * 1000),
    "If-Range": ("*", '"', f'"{digest_of(BLOB)}"', "Sat, 01 Jan 2000 00:00:00 GMT"),
    "Authorization": ("", "Bearer", "Bearer x", "Bearer a.b.c", "Basic \xff", "a:b", "Bearer " + "e" * 9000),
    "Host": ("", "localhost", "evil.example", "a b", "[::1", "\xff", "localhost:99999", "x" * 5000),
    "Origin": ("http://localhost", "http://evil.example", "null", "http://[", "\xff"),
    "X-Forwarded-For": ("127.0.0.1", "\xff"),
    "X-Forwarded-Host": ("evil.example", '"><script>'),
    "X-Forwarded-Proto": ("https", "javascript"),
    "X-Request-Id": ("ok", "x" * 100, "\xff", "a b"),
    "X-Redirect-Uploads": ("1",),
    "Expect": ("100-continue", "200-ok"),
    "Accept-Encoding": ("gzip", "br;q=0"),
    "Content-Encoding": ("gzip",),
    "Upgrade": ("h2c", "websocket"),
    "Cookie": ("a=b; c", "\xff"),
    "Content_Length": ("5",),
    "X Space": ("1",),
    "": ("1",),
    "X-Large": ("y" * 16_000, "y" * 17_000, ": \r\nX-More".join("z" * 200)),
}  # fmt: skip


def headers_of(name: str) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.just(name), st.sampled_from(ODD_HEADERS[name]) | odd_text)


headers = st.lists(st.sampled_from(sorted(ODD_HEADERS)).flatmap(headers_of), max_size=3)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
methods = st.sampled_from(METHODS * 3 + ("OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "get", "G@T"))
bodies = st.binary(max_size=200) | st.sampled_from([b"", EMPTY, IMAGE, INDEX, b"x" * 70_000])
framings = st.sampled_from(["none", "length", "length", "length", "chunked", "chunked", "lies"])
LIES = (
    [("Content-Length", "4")], [("Content-Length", "9" * 20)], [("Content-Length", "-1")], [("Content-Length", "\xb2")],
    [("Content-Length", "2"), ("Content-Length", "2")], [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", "chunked")], [("Transfer-Encoding", "gzip")], [("Transfer-Encoding", "chunked, identity")],
    [("Transfer-Encoding", " \tchunked")], [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
)  # fmt: skip


def framed(framing: str, body: bytes, lie: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bytes]:
    """The headers that tell where the body ends, and the bytes that follow them."""
    if framing == "none":
        return [], b""
    if framing == "chunked":
        return [("Transfer-Encoding", "chunked")], chunked(body, 50)
    return ([("Content-Length", str(len(body)))] if framing == "length" else lie), body


class Watch:
    """The state before a request; a request that was refused must have left it so."""

    def __init__(self, world: World) -> None:
        self._world, self._before = world, world.state()

    def check(self, answers: list[Answer], method: str, *, may_move_target: bool) -> None:
        if any(answer.status < 400 for answer in answers) and method not in ("GET", "HEAD"):
            self._world.restore()
            return
        after = self._world.state()
        if may_move_target:  # a body that broke off counts as far as it came, one of a wrong digest ends its session
            before, staged = self._before["staged"], after["staged"]
            assert isinstance(staged, set) and isinstance(before, set) and staged <= before
            self._before |= {key: after[key] for key in ("staged", self._world.target)}
        assert after == self._before
        self._world.restore()


@budget(100)
@given(methods, targets(), headers, framings, bodies, st.sampled_from(LIES))
def test_any_request_is_answered_in_the_specs_words(
    world: World,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    framing: str,
    body: bytes,
    lie: list[tuple[str, str]],
) -> None:
    watch = Watch(world)
    target = target.replace("/v2/{target}", world.target)
    given_names = {name for name, _ in headers}
    usual = [("Host", world.host), ("Authorization", f"Bearer {world.token}")]
    ends, sent = framed(framing, body, lie)
    head = [each for each in usual if each[0] not in given_names] + headers + ends

    answers = exchange(world.host, request(method, target, head, sent), (method, "GET"))

    event(f"{method if method in METHODS else 'other'} {answers[0].status if answers else 'closed'}")
    assert len(answers) == 1 or framing == "lies" or "" in given_names, answers
    for answer in answers[:1]:
        assert_sound(answer, method)
    may_move_target = world.target in target and method in ("PATCH", "PUT") and bool(sent)
    watch.check(answers, method, may_move_target=may_move_target)


@budget(30)
@given(st.sampled_from(METHODS), targets(), st.sampled_from(["length", "chunked"]), bodies)
def test_what_follows_a_request_is_read_as_the_next_one(
    world: World, method: str, target: str, framing: str, body: bytes
) -> None:
    """Were the end of a body in doubt, a stranger could put requests into the mouths of others behind one proxy."""
    watch = Watch(world)
    target = target.replace("/v2/{target}", world.target)
    usual = [("Host", world.host), ("Authorization", f"Bearer {world.token}")]
    ends, sent = framed(framing, body, [])
    next_one = request("GET", f"/v2/{REPOSITORY}/manifests/v1", usual)

    answers = exchange(world.host, request(method, target, usual + ends, sent) + next_one, (method, "GET"))

    assert_sound(answers[0], method)
    if answers[0].headers["Connection"] == "keep-alive" and len(body) < 2**16:  # what nobody reads is read away
        assert [answer.body for answer in answers[1:]] == [IMAGE]
    assert [answer.body for answer in answers[1:]] in ([], [IMAGE])
    may_move_target = world.target in target and method in ("PATCH", "PUT") and bool(sent)
    watch.check(answers[:1], method, may_move_target=may_move_target)


odd_strings = st.text(max_size=10) | st.sampled_from(["\ud800", "\udfff\ud800", "\0", "\ufeff", "a\nb", "x" * 300])
leaves: st.SearchStrategy[Any] = st.one_of(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(),
    odd_strings,
    st.sampled_from([OCI_MANIFEST, OCI_INDEX, 2, 2.0, "2", "sha256:", "__proto__"]) | digests,
)
keys = st.text(max_size=5) | st.sampled_from(
    (
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
        "artifactType",
        "digest",
        "size",
    )
)
json_values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something in it replaced, added or gone."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        changed = value.copy()
        changed[place] = draw(mutated(value[place]))
        return changed
    if isinstance(value, dict) and draw(st.booleans()):
        gone = draw(st.sampled_from([*value, ""]))
        return {**{key: each for key, each in value.items() if key != gone}, **draw(st.dictionaries(keys, json_values))}
    return draw(json_values)


originals = st.sampled_from([json.loads(raw) for raw in (IMAGE, INDEX, REFERRER)])
with_more = st.builds(  # fields that nobody knows are legal, whatever they hold
    lambda value, more, notes: value | {f"x{key}": each for key, each in more.items()} | {"annotations": notes},
    originals,
    st.dictionaries(keys, json_values, max_size=3),
    st.dictionaries(st.text(max_size=5), odd_strings),
)
manifest_bodies = st.builds(
    lambda value, is_ascii, encoding: json.dumps(value, ensure_ascii=is_ascii).encode(encoding, "surrogatepass"),
    originals.flatmap(mutated) | with_more | with_more.flatmap(mutated),
    st.booleans(),
    st.sampled_from(["utf-8"] * 9 + ["utf-16"]),
)


@budget(90)
@given(manifest_bodies, st.sampled_from([OCI_MANIFEST, OCI_INDEX, "", "application/json"]), st.booleans())
def test_a_mutated_manifest_is_kept_exactly_or_not_at_all(
    world: World, raw: bytes, media_type: str, is_chunked: bool
) -> None:
    assume(raw not in (IMAGE, INDEX, REFERRER))
    client, path = Client(world.host, world.token), f"/v2/{REPOSITORY}/manifests"
    before = world.state()

    put = client.request(
        "PUT", f"{path}/mutant", [raw] if is_chunked else raw, {"Content-Type": media_type}, chunked=is_chunked
    )

    event(str(put.status))
    assert_sound(put, "PUT")
    assert put.status in (201, 400)
    if put.status == 201:
        digest = digest_of(raw)
        got = client.request("GET", f"{path}/mutant")
        assert (got.status, got.body, put.headers["Docker-Content-Digest"]) == (200, raw, digest)
        assert media_type in ("", got.headers["Content-Type"])
        assert client.request("GET", f"/v2/{REPOSITORY}/referrers/{digest_of(IMAGE)}").status == 200
        assert client.request("DELETE", f"{path}/{digest}").status == 202
    assert world.state() == before


TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b": ", b" ", b"\t", b"HTTP/1.1", b"HTTP/0.9", b"%", b"\xff", b"//", b"..", b",", b"0",
    b"-", b"chunked", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"\r\n folded", b"*",
    b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
)  # fmt: skip
edits = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.sampled_from(TOKENS) | st.binary(max_size=4)),
    min_size=1,
    max_size=4,
)


@budget(70)
@given(st.integers(0, 4), edits)
def test_a_request_with_bytes_gone_astray_is_refused_or_understood(
    world: World, which: int, edits: list[tuple[int, int, bytes]]
) -> None:
    watch = Watch(world)
    usual = [("Host", world.host), ("Authorization", f"Bearer {world.token}")]
    image = [*usual, ("Content-Type", OCI_MANIFEST), ("Content-Length", str(len(IMAGE)))]
    streamed = [*usual, ("Transfer-Encoding", "chunked"), ("Content-Range", "3-6")]
    data = [
        request("GET", f"/v2/{REPOSITORY}/manifests/v1", usual),
        request("PUT", f"/v2/{REPOSITORY}/manifests/v1", image, IMAGE),
        request("PATCH", world.target, streamed, chunked(b"defg", 2)),
        request("PUT", f"{world.target}?digest={digest_of(b'abc')}", [*usual, ("Content-Length", "0")]),
        request("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest_of(BLOB)}", image, BLOB),
    ][which]
    for place, count, token in edits:
        at = place % len(data)
        data = data[:at] + token + data[at + count :]

    answers = exchange(world.host, data)

    event(" ".join(str(answer.status) for answer in answers) or "closed")
    for answer in answers:
        assert answer.status < 500 or is_unread(answer), answer
    watch.check(answers, data[: data.find(b" ")].decode("latin-1"), may_move_target=which in (2, 3))
