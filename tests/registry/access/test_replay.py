"""Signed requests that were not meant for us, or not now, or not in this form: refused, and nothing is changed."""

from __future__ import annotations

import base64
import re
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.keys import PrivateKey, sign_token_request, token_request_url
from tests.client import Answer
from tests.registry.access.callers import api_signature
from tests.registry.access.world import PRIVATE, Wire, World, serve, serving
from tests.registry.hostile import exchange

SCOPE = f"repository:{PRIVATE}:pull,push"
REFUSED = (400, 401, 403, 431)
_slowest: list[tuple[float, str]] = []


@pytest.fixture(scope="module", autouse=True)
def slowest_refusals() -> Iterator[None]:
    """Reported, not asserted: a refusal must not cost more than an answer."""
    yield
    for seconds, what in sorted(_slowest, reverse=True)[:5]:
        print(f"{seconds * 1000:8.1f} ms  {what}")


@dataclass(frozen=True)
class Signed:
    """A token request as its sender meant it."""

    url: str
    authorization: str

    @property
    def target(self) -> str:
        return self.url[re.search(r"/(v2/token|api/)", self.url).start() :]


def sign(
    key: PrivateKey,
    origin: str,
    *,
    scope: str = SCOPE,
    ts: int | None = None,
    nonce: str | None = None,
    service: str = "tonnage",
    path: str = "/v2/token",
) -> Signed:
    when = int(time.time()) if ts is None else ts
    url = token_request_url(f"{origin}{path}", service, scope, when, nonce or secrets.token_urlsafe(16))
    return Signed(url, sign_token_request(key, url))


def ask(world: World, target: str, authorization: str, **headers: str) -> Answer:
    wire = Wire(world.host)
    try:
        return wire.send("GET", target, {"Authorization": authorization, **headers})
    finally:
        wire.close()


def refuse(world: World, what: str, target: str, authorization: str, **headers: str) -> Answer:
    """Ask, and hold that it was refused and that nothing changed."""
    before, began = world.state(), time.perf_counter()
    answer = ask(world, target, authorization, **headers)
    _slowest.append((time.perf_counter() - began, what))
    assert answer.status in REFUSED, (what, answer.status, answer.body[:200])
    assert b'"token"' not in answer.body
    assert world.state() == before, what
    return answer


def test_a_signed_request_counts_once(network):
    signed = sign(network.keys["push"], f"http://{network.host}")
    assert ask(network, signed.target, signed.authorization).status == 200

    refuse(network, "the same again", signed.target, signed.authorization)


def test_whichever_worker_it_reaches_and_however_many_come_at_once(network):
    signed = sign(network.keys["push"], f"http://{network.host}")
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: ask(network, signed.target, signed.authorization).status, range(24)))

    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 401, 429}


def test_a_restart_does_not_forget(tmp_path):
    with serve(tmp_path / "data") as world:
        listen, signed = world.host, sign(world.keys["push"], f"http://{world.host}")
        assert ask(world, signed.target, signed.authorization).status == 200

    with serving(world, listen=listen):
        refuse(world, "after a restart", signed.target, signed.authorization)


@pytest.mark.parametrize(
    ("off_s", "is_let_in"), [(-303, False), (303, False), (-290, True), (290, True), (-(10**9), False)]
)
def test_the_clock_may_be_off_by_five_minutes(network, off_s, is_let_in):
    signed = sign(network.keys["push"], f"http://{network.host}", ts=int(time.time()) + off_s)
    if is_let_in:
        assert ask(network, signed.target, signed.authorization).status == 200
    else:
        refuse(network, f"{off_s} s", signed.target, signed.authorization)


ALTERED: dict[str, Callable[[str], str]] = {
    "a wider scope": lambda target: target.replace("pull%2Cpush", "pull%2Cpush%2Cdelete"),
    "another repository": lambda target: target.replace("vault%2Fmodel", "commons%2Fmodel"),
    "another service": lambda target: target.replace("service=tonnage", "service=Tonnage"),
    "no service": lambda target: target.replace("&service=tonnage", ""),
    "a second scope": lambda target: f"{target}&scope=repository%3Acommons%2Fmodel%3Apush",
    "the order of the query": lambda target: "?".join([target.partition("?")[0], _reversed(target.partition("?")[2])]),
    "a comma as it is": lambda target: target.replace("%2C", ","),
    "lower-case escapes": lambda target: target.replace("%3A", "%3a"),
    "an escape too many": lambda target: target.replace("/v2/token", "/v2/%74oken"),
    "an empty parameter": lambda target: f"{target}&",
    "a fragment": lambda target: f"{target}#x",
    "another nonce": lambda target: target.replace("nonce=", "nonce=A"),
    "a second nonce": lambda target: f"{target}&nonce={secrets.token_urlsafe(16)}",
    "another time": lambda target: target[:-1] + str((int(target[-1]) + 1) % 10),
    "a second time": lambda target: f"{target}&ts={int(time.time())}",
    "no query": lambda target: target.partition("?")[0],
    "an absolute form": lambda target: f"http://registry.example.com{target}",
}


def _reversed(query: str) -> str:
    return "&".join(reversed(query.split("&")))


@pytest.mark.parametrize("change", list(ALTERED))
def test_what_was_signed_is_what_must_be_asked(network, change):
    signed = sign(network.keys["push"], f"http://{network.host}")
    altered = ALTERED[change](signed.target)
    assert altered != signed.target

    refuse(network, change, altered, signed.authorization)
    assert ask(network, signed.target, signed.authorization).status == 200  # a refusal uses no nonce up


SIGNED_TWICE = {"nonce=AAAAAAAAAAAAAAAAAAAAAA", "ts=1", "nonce="}


@pytest.mark.parametrize("more", sorted(SIGNED_TWICE))
def test_a_parameter_that_counts_is_there_once_even_if_both_were_signed(network, more):
    key, signed = network.keys["push"], sign(network.keys["push"], f"http://{network.host}")
    url = f"{signed.url}&{more}"

    refuse(network, f"twice: {more}", f"{signed.target}&{more}", sign_token_request(key, url))


@pytest.mark.parametrize("nonce", ["short", "a" * 87, "has%20spaces%20in%20it%20all", "üüüüüüüüüüüüüüüü"])
def test_a_nonce_is_sixteen_random_bytes(network, nonce):
    signed = sign(network.keys["push"], f"http://{network.host}", nonce=nonce)

    refuse(network, f"nonce {nonce[:20]}", signed.target, signed.authorization)


@pytest.mark.parametrize(
    "origin",
    [
        "http://registry.example.com",
        "http://127.0.0.1:1",
        "ftp://HOST",
        "",
        "HTTP://HOST",
        "http://HOST.",
        "http://u@HOST",
    ],
)
def test_what_was_signed_for_another_place_is_worthless_here(network, origin):
    """One who runs another server gets such requests sent, and may hand them on."""
    signed = sign(network.keys["push"], origin.replace("HOST", network.host))

    refuse(network, f"signed for {origin}", signed.target, signed.authorization)


@pytest.mark.parametrize("place", ["network", "loopback"])
@pytest.mark.parametrize(
    "host", ["registry.example.com", "127.0.0.1.example.com", "8.8.8.8", "[2001:db8::1]:80", "a b"]
)
def test_handed_on_with_the_host_it_was_signed_for_it_is_worthless_too(request, place, host):
    world = request.getfixturevalue(place)
    signed = sign(world.keys["push"], f"http://{host}")

    refuse(world, f"Host {host}", signed.target, signed.authorization, Host=host)


def test_what_was_signed_for_another_server_on_this_machine_is_worthless_here(network):
    signed = sign(network.keys["push"], "http://127.0.0.1:1")

    refuse(network, "another port", signed.target, signed.authorization, Host="127.0.0.1:1")


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Original-URL", "X-Rewrite-URL"]
)
def test_a_header_does_not_say_what_was_signed(network, header):
    signed = sign(network.keys["push"], "http://registry.example.com")
    values = {"X-Forwarded-Proto": "https", "Forwarded": "host=registry.example.com", "X-Original-URL": signed.target}

    more = {header: values.get(header, "registry.example.com")}
    refuse(network, header, signed.target, signed.authorization, **more)


def blob_of(kind: bytes, *fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(each)) + each for each in (kind, *fields))).decode()


def bad_headers(world: World) -> dict[str, Callable[[Signed], str]]:
    own, other = world.keys["push"], world.keys["admin"]
    rsa_key = rsa.generate_private_key(65537, 1024).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    def parts(signed: Signed) -> tuple[str, bytes]:
        blob, _, signature = signed.authorization.partition(":")
        return blob, base64.b64decode(signature)

    def with_signature(change: Callable[[bytes], bytes]) -> Callable[[Signed], str]:
        return lambda s: f"{parts(s)[0]}:{base64.b64encode(change(parts(s)[1])).decode()}"

    def with_blob(blob: str) -> Callable[[Signed], str]:
        return lambda s: f"{blob}:{s.authorization.partition(':')[2]}"

    return {
        "another key's signature": lambda s: own.public.blob_base64 + sign_token_request(other, s.url)[68:],
        "another key's blob": with_blob(other.public.blob_base64),
        "one bit": with_signature(lambda raw: bytes([raw[0] ^ 1]) + raw[1:]),
        "the last bit": with_signature(lambda raw: raw[:-1] + bytes([raw[-1] ^ 0x80])),
        "S plus the order": with_signature(plus_order),
        "63 bytes": with_signature(lambda raw: raw[:63]),
        "65 bytes": with_signature(lambda raw: raw + b"\0"),
        "nothing but zeros": with_signature(lambda raw: bytes(64)),
        "no bytes": with_signature(lambda raw: b""),
        "SSH's own form": with_signature(lambda raw: b"\0\0\0\x0bssh-ed25519\0\0\0\x40" + raw),
        "no padding": lambda s: s.authorization.rstrip("="),
        "URL-safe base64": lambda s: f"{s.authorization[:-3]}-_=",
        "stray bits": lambda s: stray_bits(s.authorization),
        "a second colon": lambda s: f"{s.authorization}:x",
        "a scheme": lambda s: f"Bearer {s.authorization}",
        "an unknown scheme": lambda s: f"Signature {s.authorization}",
        "only the key": lambda s: s.authorization.partition(":")[0],
        "only the signature": lambda s: ":" + s.authorization.partition(":")[2],
        "a colon": lambda s: ":",
        "an RSA key": with_blob(rsa_key.split()[1].decode()),
        "an RSA key's name": with_blob(blob_of(b"ssh-rsa", own.public.raw)),
        "a key of 31 bytes": with_blob(blob_of(b"ssh-ed25519", own.public.raw[:31])),
        "a key and more": with_blob(blob_of(b"ssh-ed25519", own.public.raw, b"more")),
        "a certificate": with_blob(blob_of(b"ssh-ed25519-cert-v01@openssh.com", own.public.raw)),
        "the point of order one": with_blob(blob_of(b"ssh-ed25519", b"\1" + bytes(31))),
        "no point at all": with_blob(blob_of(b"ssh-ed25519", b"\xff" * 32)),
        "a truncated blob": lambda s: s.authorization[4:],
        "10 kB": lambda s: s.authorization + "A" * 10_000,
        "tabs": lambda s: s.authorization.replace(":", ":\t"),
        "Latin-1": lambda s: s.authorization[:-1] + "é",
    }  # fmt: skip


def plus_order(signature: bytes) -> bytes:
    """The same signature by the lax rule that adds the group's order: a second form of it, were it accepted."""
    order = 2**252 + 27742317777372353535851937790883648493
    return signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")


def stray_bits(authorization: str) -> str:
    """`…xQ==` spells the bytes that `…xR==` spells too."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return authorization[:-3] + alphabet[alphabet.index(authorization[-3]) + 1] + "=="


def test_no_other_form_of_a_signature_counts(network):
    for what, change in bad_headers(network).items():
        signed = sign(network.keys["push"], f"http://{network.host}")
        assert change(signed) != signed.authorization, what

        refuse(network, what, signed.target, change(signed))


def test_nor_does_a_point_of_small_order_that_verifies_everything(network):
    """With the lax rule a key of order one, and the signature (R of order one, S of 0), fits every message."""
    blob = blob_of(b"ssh-ed25519", b"\1" + bytes(31))
    signed = sign(network.keys["push"], f"http://{network.host}")

    signature = base64.b64encode(b"\1" + bytes(63)).decode()
    refuse(network, "a point of order one", signed.target, f"{blob}:{signature}")


RAW_HEADERS = {
    "1 MB": lambda good: [b"Authorization: " + good + b"A" * 2**20],
    "NUL": lambda good: [b"Authorization: " + good[:20] + b"\0" + good[20:]],
    "a bare line feed": lambda good: [b"Authorization: " + good[:20] + b"\n" + good[20:]],
    "a bare carriage return": lambda good: [b"Authorization: " + good[:20] + b"\r" + good[20:]],
    "folded": lambda good: [b"Authorization: " + good[:20], b" " + good[20:]],
    "a space before the colon": lambda good: [b"Authorization : " + good],
    "twice, the good one first": lambda good: [b"Authorization: " + good, b"Authorization: Bearer x"],
    "twice, the good one last": lambda good: [b"Authorization: Bearer x", b"Authorization: " + good],
    "two signatures in one": lambda good: [b"Authorization: " + good + b"," + good],
    "two hosts": lambda good: [b"Authorization: " + good, b"Host: registry.example.com"],
    "with an underscore": lambda good: [b"Authorization: Bearer x", b"HTTP_AUTHORIZATION: " + good],
}


@pytest.mark.parametrize("what", list(RAW_HEADERS))
def test_headers_that_two_readers_could_read_in_two_ways(network, what):
    signed, before, began = sign(network.keys["push"], f"http://{network.host}"), network.state(), time.perf_counter()
    lines = [f"GET {signed.target} HTTP/1.1".encode(), f"Host: {network.host}".encode()]
    lines += [*RAW_HEADERS[what](signed.authorization.encode()), b"Connection: close", b"", b""]

    answers = exchange(network.host, b"\r\n".join(lines))

    _slowest.append((time.perf_counter() - began, what))
    assert all(answer.status in REFUSED and b'"token"' not in answer.body for answer in answers), answers
    assert network.state() == before


def test_a_thousand_scopes_are_too_many(network):
    """Signed, anonymous, and in a form: refused before anything is looked up."""
    scope = " ".join(f"repository:vault/m{i}:pull" for i in range(1000))
    many = sign(network.keys["push"], f"http://{network.host}", scope=scope)
    few = sign(
        network.keys["push"],
        f"http://{network.host}",
        scope=" ".join(f"repository:vault/m{i}:pull" for i in range(100)),
    )

    answers = exchange(network.host, f"GET {many.target} HTTP/1.1\r\nHost: {network.host}\r\n\r\n".encode())
    assert [answer.status for answer in answers] in ([414], [])
    refuse(network, "100 scopes", few.target, few.authorization)
    form = f"grant_type=password&password={network.secrets['pull']}&scope={scope.replace(' ', '+')}".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert Wire(network.host).send("POST", "/v2/token", headers, form).status == 400


class TestSignaturesBelowApi:
    """They cover the method and the target; another method, another target, a later time are another request."""

    @pytest.mark.parametrize(
        ("signed", "sent"),
        [
            (("GET", "/api/tags?ts=NOW"), ("GET", "/api/ps?ts=NOW")),
            (("GET", "/api/tags?ts=NOW"), ("HEAD", "/api/tags?ts=NOW")),
            (("POST", "/api/show?ts=NOW"), ("DELETE", "/api/delete?ts=NOW")),
            (("GET", "/api/tags?ts=NOW"), ("GET", "/api/tags?ts=NOW&x=1")),
            (("GET", "/api/tags?ts=NOW"), ("GET", "/api/tags")),
            (("GET", "/api/tags"), ("GET", "/api/tags")),
            (("GET", "/api/tags?ts=OLD"), ("GET", "/api/tags?ts=OLD")),
            (("GET", "/api/tags?ts=NEW"), ("GET", "/api/tags?ts=NEW")),
            (("GET", "/api/tags?ts=NOW&ts=NOW"), ("GET", "/api/tags?ts=NOW&ts=NOW")),
            (("GET", "/v2/_catalog?ts=NOW"), ("GET", "/v2/_catalog?ts=NOW")),
            (("GET", "/v2/vault/model/manifests/v1?ts=NOW"), ("GET", "/v2/vault/model/manifests/v1?ts=NOW")),
        ],
    )
    def test_it_counts_for_nothing_else(self, network, signed, sent):
        now = int(time.time())
        times = {"NOW": now, "OLD": now - 303, "NEW": now + 303}
        texts = [f"{method} {target}" for method, target in (signed, sent)]
        for name, value in times.items():
            texts = [text.replace(name, str(value)) for text in texts]
        (method, target), (other_method, other_target) = (text.split(" ") for text in texts)
        headers = {"Authorization": api_signature(network.keys["admin"], method, target)}

        answer = Wire(network.host).send(other_method, other_target, headers)

        assert answer.status in (401, 403)

    def test_what_was_signed_for_the_token_endpoint_is_none(self, network):
        signed = sign(network.keys["admin"], f"http://{network.host}", path="/api/tags")

        assert ask(network, signed.target, signed.authorization).status == 403


def test_an_address_that_fails_too_often_waits(tmp_path: Path):
    """And those who ask from elsewhere, or with what is right, on other routes, do not."""
    with serve(tmp_path / "data", {"TONNAGE_WORKERS": "1"}, listen="0.0.0.0:0") as world:
        wrong = {"Authorization": "Bearer tng_wrong", "X-Forwarded-For": "203.0.113.9"}
        wire = Wire(world.host)
        statuses = {wire.send("GET", "/v2/token", wrong).status for _ in range(200)}

        assert statuses == {401, 429}
        right = {"Authorization": f"Bearer {world.secrets['pull']}"}
        assert wire.send("GET", f"/v2/{PRIVATE}/manifests/v1", right).status == 200
        assert wire.send("GET", "/healthz", {}).status == 200
