"""Manifests that must not be taken, each with the answer that the spec gives it; afterwards all is as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.registry.conformance.wire import OCI_INDEX, OCI_MANIFEST, digest_of, dump
from tests.registry.hostile import (
    EMPTY,
    IMAGE,
    REPOSITORY,
    World,
    assert_sound,
    chunked,
    descriptor,
    exchange,
    image,
    request,
)
from tests.server import running_server

LIMIT = 4 * 2**20
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


def joined(field: str, item: bytes, count: int, **more: Any) -> bytes:
    """A manifest whose `field` lists `item` so often; fast, where `json.dumps` is not."""
    head = dump({"schemaVersion": 2, **more})[:-1]
    return head + f',"{field}":['.encode() + b",".join([item] * count) + b"]}"


def absent(number: int) -> bytes:
    return b'{"mediaType":"a","digest":"sha256:%064x","size":2}' % number


LAYER = dump(descriptor(EMPTY, "a"))
CONFIG = {"config": descriptor(EMPTY)}
AS_JSON = IMAGE.decode()


def odd(*values: Any) -> tuple[Any, ...]:
    return values


def with_text(old: str, new: str) -> bytes:
    """The image with one piece of its text replaced."""
    assert AS_JSON.count(old) >= 1
    return AS_JSON.replace(old, new, 1).encode("utf-8", "surrogatepass")


MANIFESTS: dict[str, tuple[bytes, str]] = {
    # not JSON, or no object
    "null": (b"null", OCI_MANIFEST),
    "text": (b'"x"', OCI_MANIFEST),
    "a number": (b"2", OCI_MANIFEST),
    "an empty object": (b"{}", OCI_MANIFEST),
    "whitespace": (b" " * 1000, OCI_MANIFEST),
    "two manifests": (IMAGE + IMAGE, OCI_MANIFEST),
    "cut short": (IMAGE[:-1], OCI_MANIFEST),
    "a NUL at the end": (IMAGE + b"\0", OCI_MANIFEST),
    "a comment": (b"// the image\n" + IMAGE, OCI_MANIFEST),
    "a byte order mark": (b"\xef\xbb\xbf" + IMAGE, OCI_MANIFEST),
    "UTF-16": (AS_JSON.encode("utf-16"), OCI_MANIFEST),
    "UTF-16 without a mark": (AS_JSON.encode("utf-16-le"), OCI_MANIFEST),
    "UTF-32": (AS_JSON.encode("utf-32"), OCI_MANIFEST),
    "a surrogate in UTF-8": (with_text("application/x", "\ud800"), OCI_MANIFEST),
    "an overlong NUL": (IMAGE.replace(b"/x", b"\xc0\x80", 1), OCI_MANIFEST),
    "a raw newline in text": (with_text("application/x", "a\nb"), OCI_MANIFEST),
    # nesting and repetition
    "100,000 brackets": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", OCI_MANIFEST),
    "2,000,000 brackets": (b"[" * 2_000_000 + b"]" * 2_000_000, OCI_MANIFEST),
    "600,000 objects in each other": (b'{"a":' * 600_000 + b"1" + b"}" * 600_000, OCI_MANIFEST),
    "a key twice": (with_text('"layers"', '"config":{},"layers"'), OCI_MANIFEST),
    "a key twice, once escaped": (with_text('"layers"', '"\\u0063onfig":{},"layers"'), OCI_MANIFEST),
    "a key twice inside a layer": (with_text('"size":2048', '"size":2048,"size":2048'), OCI_MANIFEST),
    "a key 500,000 times": (b"{" + b'"a":1,' * 500_000 + b'"a":1}', OCI_MANIFEST),
    "1,000,000 layers that are none": (joined("layers", b"{}", 1_000_000, **CONFIG), OCI_MANIFEST),
    "1,000,000 layers that are numbers": (joined("layers", b"1", 1_000_000, **CONFIG), OCI_MANIFEST),
    "a number of 4,000,000 digits": (with_text("2048", "9" * 4_000_000), OCI_MANIFEST),
    "a float of 4,000,000 digits": (with_text("2048", "1." + "9" * 4_000_000), OCI_MANIFEST),
    # what it says it is
    "layers and manifests": (dump(image(manifests=[])), OCI_MANIFEST),
    "layers and manifests: null": (dump(image(manifests=None)), OCI_MANIFEST),
    "an index with layers": (dump({"schemaVersion": 2, "manifests": [], "layers": []}), OCI_INDEX),
    "both, and no word of its type": (dump({"schemaVersion": 2, "manifests": [], "layers": []}), ""),
    "another type in its header": (IMAGE, OCI_INDEX),
    "a type that we do not know": (dump(image(mediaType="text/html")), "text/html"),
    "two types in its header": (IMAGE, f"{OCI_MANIFEST}, {OCI_INDEX}"),
    "a type in capitals": (IMAGE, OCI_MANIFEST.upper()),
    "a type with a byte behind it": (IMAGE, OCI_MANIFEST + "\xff"),
    "a media type that is a list": (dump(image(mediaType=[OCI_MANIFEST])), OCI_MANIFEST),
    **{
        f"schemaVersion {json.dumps(version)}": (dump(image(schemaVersion=version)), OCI_MANIFEST)
        for version in (1, 3, "2", 2.0, True, None, [2], 2**70)
    },
    # sizes and digests
    **{
        f"a size of {text}": (with_text("2048", text), OCI_MANIFEST)
        for text in ("-1", "2048.0", "2.048e3", "1e400", str(2**63), "true", "null", '"2048"', "[2048]", "{}")
    },
    **{
        f"a size of {text}, which is no JSON": (with_text("2048", text), OCI_MANIFEST)
        for text in ("NaN", "Infinity", "-Infinity", "02048", "+2048", "0x800", "2048.")
    },
    "a layer shorter than it says": (with_text("2048", "2049"), OCI_MANIFEST),
    "a layer longer than it says": (with_text("2048", "0"), OCI_MANIFEST),
    "a child longer than it says": (
        dump({"schemaVersion": 2, "manifests": [descriptor(IMAGE, OCI_MANIFEST, size=len(IMAGE) - 1)]}),
        OCI_INDEX,
    ),
    **{
        f"the digest {digest[:24]!r}": (dump(image(config=descriptor(EMPTY, digest=digest))), OCI_MANIFEST)
        for digest in (
            digest_of(EMPTY).upper(), "sha256:" + "A" * 64, "md5:" + "0" * 32, "blake3:" + "a" * 64, "sha256:", "", ":",
            digest_of(EMPTY) + "\n", " " + digest_of(EMPTY), "sha256:" + "a" * 63, "sha512:" + "a" * 64, "\ud800:a",
        )
    },
    **{
        f"a config of {json.dumps(config)[:24]}": (dump(image(config=config)), OCI_MANIFEST)
        for config in odd(None, [], {}, "x", 5, [descriptor(EMPTY)])
    },
    **{
        f"layers of {json.dumps(layers)[:24]}": (dump(image(layers=layers)), OCI_MANIFEST)
        for layers in odd({}, "x", [None], [[]], [[descriptor(EMPTY)]], {"0": descriptor(EMPTY)})
    },
    **{
        f"a subject of {json.dumps(subject)[:24]}": (dump(image(subject=subject)), OCI_MANIFEST)
        for subject in odd([], "x", {}, descriptor(EMPTY, digest="md5:x"), descriptor(EMPTY, size=2**63))
    },
    **{
        f"annotations of {json.dumps(annotations)}": (dump(image(annotations=annotations)), OCI_MANIFEST)
        for annotations in odd([], "x", 1, True, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {}})
    },
    "an artifactType with a space": (dump(image(artifactType="a b")), OCI_MANIFEST),
    "an artifactType of 300 characters": (dump(image(artifactType="a" * 300)), OCI_MANIFEST),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "media_type"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_is_none_is_refused(client: Client, raw: bytes, media_type: str) -> None:
    answer = client.put_manifest(REPOSITORY, "v1", raw, media_type)

    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert_sound(answer, "PUT")
    assert len(answer.body) < 2000


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (joined("layers", LAYER, 1_000_000, **CONFIG), OCI_MANIFEST),
        (joined("manifests", LAYER, 50_000), OCI_INDEX),
        (b" " * (LIMIT + 1), OCI_MANIFEST),
        (dump(image(annotations={"a": "x" * LIMIT})), OCI_MANIFEST),
    ],
    ids=["1,000,000 layers", "50,000 children", "whitespace", "an annotation"],
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_manifest_over_four_mebibytes_is_not_read_to_its_end(
    world: World, client: Client, raw: bytes, media_type: str, *, is_chunked: bool
) -> None:
    ends = ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(len(raw)))
    body = chunked(raw) if is_chunked else raw

    usual = [("Host", world.host), ("Authorization", f"Bearer {world.token}"), ("Content-Type", media_type), ends]
    answer, *rest = exchange(world.host, request("PUT", f"{PATH}/manifests/v1", usual, body))

    assert (answer.status, answer.code, rest) == (413, "MANIFEST_INVALID", [])


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (joined("manifests", b"", 0), OCI_INDEX),
        (joined("layers", LAYER, LIMIT // (len(LAYER) + 1) - 10, **CONFIG), OCI_MANIFEST),
        (dump(image(annotations={"a": "x" * 4_000_000})), OCI_MANIFEST),
        (dump(image(annotations={"\0": "\0", "\ud800": "\udfff", "": ""}, subject=descriptor(IMAGE))), OCI_MANIFEST),
        (dump(image(custom=[[]] * 1_000_000)), OCI_MANIFEST),
        (dump({f"x{number:x}": 1 for number in range(300_000)} | image()), OCI_MANIFEST),
        (dump(image(layers=[], subject=descriptor(b"never pushed", digest="sha512:" + "a" * 128))), OCI_MANIFEST),
    ],
    ids=["no children", "one layer often", "annotation", "NUL and surrogates", "lists", "keys", "subject"],
)
def test_a_manifest_that_is_only_strange_is_kept_as_it_came(client: Client, raw: bytes, media_type: str) -> None:
    put = client.put_manifest(REPOSITORY, "strange", raw, media_type)
    got = client.request("GET", f"{PATH}/manifests/strange")
    referrers = client.request("GET", f"{PATH}/referrers/{digest_of(IMAGE)}")
    gone = client.request("DELETE", f"{PATH}/manifests/{digest_of(raw)}")

    assert (put.status, got.status, got.body, referrers.status, gone.status) == (201, 200, raw, 200, 202)


def test_more_blobs_are_missing_than_one_answer_names(client: Client) -> None:
    count = LIMIT // (len(absent(0)) + 1) - 10
    for field, media_type in (("layers", OCI_MANIFEST), ("manifests", OCI_INDEX)):
        more = CONFIG if field == "layers" else {}
        raw = joined(field, b"%s", 1, **more).replace(b"%s", b",".join(absent(number) for number in range(count)))

        answer = client.put_manifest(REPOSITORY, "v1", raw, media_type)

        assert answer.status == 400
        assert {error["code"] for error in answer.json["errors"]} == {"MANIFEST_BLOB_UNKNOWN"}
        assert 100 <= len(answer.json["errors"]) <= 1000


def test_an_index_of_itself_cannot_come_to_be(client: Client) -> None:
    """Its digest would have to be known before it is; one that lists its own tag's manifest lists the old one."""
    guess = dump({"schemaVersion": 2, "manifests": [descriptor(b"", OCI_INDEX, size=100)]})

    answer = client.put_manifest(REPOSITORY, digest_of(b""), guess, OCI_INDEX)

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_indexes_may_be_nested_as_deep_as_anyone_likes(client: Client) -> None:
    pushed = [IMAGE]
    for _ in range(100):
        child = descriptor(pushed[-1], OCI_MANIFEST if len(pushed) == 1 else OCI_INDEX)
        pushed.append(dump({"schemaVersion": 2, "manifests": [child], "annotations": {"depth": str(len(pushed))}}))
        assert client.put_manifest(REPOSITORY, digest_of(pushed[-1]), pushed[-1], OCI_INDEX).status == 201

    assert client.request("GET", f"{PATH}/manifests/{digest_of(pushed[-1])}").body == pushed[-1]
    for raw in reversed(pushed[1:]):
        assert client.request("DELETE", f"{PATH}/manifests/{digest_of(raw)}").status == 202
