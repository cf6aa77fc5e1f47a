from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.errors import CredentialsInvalid
from auth.keys import sign_token_request, token_request_url
from auth.signatures import WINDOW_S, verify_api_request, verify_token_request
from tests.auth.vectors import (
    API_HEADER,
    API_TARGET,
    BLOB,
    CLIENT2_BEARER,
    FINGERPRINT,
    NONCE,
    ORIGIN,
    SCOPE,
    SERVICE,
    TARGET,
    TOKEN_HEADER,
    TS,
)


def test_the_published_token_request_is_accepted():
    signed = verify_token_request(TOKEN_HEADER, TARGET, [ORIGIN], TS)

    assert (signed.key.fingerprint, signed.nonce) == (FINGERPRINT, NONCE)


def test_a_scheme_hidden_by_a_proxy_is_found():
    assert verify_token_request(TOKEN_HEADER, TARGET, ["http://registry.example.com", ORIGIN], TS)


def flipped(header: str) -> str:
    blob, _, signature = header.partition(":")
    raw = bytearray(base64.b64decode(signature))
    raw[17] ^= 1
    return f"{blob}:{base64.b64encode(raw).decode()}"


def shortened(header: str) -> str:
    blob, _, signature = header.partition(":")
    return f"{blob}:{base64.b64encode(base64.b64decode(signature)[:63]).decode()}"


def of_rsa_key(header: str) -> str:
    rsa = generate_private_key(public_exponent=65537, key_size=1024).public_key()
    line = rsa.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line.split()[1]}:{header.partition(':')[2]}"


REORDERED = (
    "/v2/token?service=registry.example.com&nonce=AAECAwQFBgcICQoLDA0ODw"
    "&scope=repository%3Aalice%2Ftiny%3Apull%2Cpush&ts=1700000000"
)


@pytest.mark.parametrize(
    ("header", "target", "origin"),
    [
        pytest.param(flipped(TOKEN_HEADER), TARGET, ORIGIN, id="one bit of the signature"),
        pytest.param(TOKEN_HEADER, TARGET.replace("1700000000", "1700000001"), ORIGIN, id="ts"),
        pytest.param(TOKEN_HEADER, REORDERED, ORIGIN, id="order of the query"),
        pytest.param(TOKEN_HEADER, TARGET, "http://registry.example.com", id="scheme"),
        pytest.param(TOKEN_HEADER, TARGET, "https://registry.example.com:443", id="port"),
        pytest.param(TOKEN_HEADER, TARGET, "https://other.example.com", id="host"),
        pytest.param(TOKEN_HEADER, TARGET.replace("%2C", ","), ORIGIN, id="encoding of the query"),
        pytest.param(of_rsa_key(TOKEN_HEADER), TARGET, ORIGIN, id="RSA key"),
        pytest.param(shortened(TOKEN_HEADER), TARGET, ORIGIN, id="63 bytes"),
        pytest.param(f"{TOKEN_HEADER}:", TARGET, ORIGIN, id="a second colon"),
        pytest.param(TOKEN_HEADER.replace(":", ""), TARGET, ORIGIN, id="no colon"),
        pytest.param(f"{BLOB}:", TARGET, ORIGIN, id="no signature"),
        pytest.param(TOKEN_HEADER.rstrip("="), TARGET, ORIGIN, id="no padding"),
        pytest.param(TOKEN_HEADER.replace("AQ==", "AR=="), TARGET, ORIGIN, id="stray bits in base64"),
        pytest.param(TOKEN_HEADER + "A" * 300, TARGET, ORIGIN, id="too long"),
        pytest.param(CLIENT2_BEARER.removeprefix("Bearer "), TARGET, ORIGIN, id="three parts"),
    ],
)
def test_any_other_token_request_is_refused(header, target, origin):
    with pytest.raises(CredentialsInvalid):
        verify_token_request(header, target, [origin], TS)


@pytest.mark.parametrize(
    ("off_s", "is_accepted"), [(0, True), (WINDOW_S, True), (-WINDOW_S, True), (301, False), (-301, False)]
)
def test_a_request_counts_for_five_minutes(off_s, is_accepted):
    now = TS + off_s
    if is_accepted:
        assert verify_token_request(TOKEN_HEADER, TARGET, [ORIGIN], now)
        return
    with pytest.raises(CredentialsInvalid, match="this server's clock, which says 2023-11-14T22:"):
        verify_token_request(TOKEN_HEADER, TARGET, [ORIGIN], now)


@pytest.mark.parametrize("change", ["&ts=1700000000", "&nonce=BBECAwQFBgcICQoLDA0ODw", "&x=1" * 200])
def test_a_signed_request_says_each_thing_once(key, change):
    url = token_request_url(f"{ORIGIN}/v2/token", SERVICE, SCOPE, TS, NONCE) + change
    header = sign_token_request(key, url)

    with pytest.raises(CredentialsInvalid):
        verify_token_request(header, url.removeprefix(ORIGIN), [ORIGIN], TS)


@pytest.mark.parametrize("nonce", ["", "short", "A" * 87, "A" * 21 + "!", "A" * 21 + "\n"])
def test_a_nonce_is_long_enough_and_plain(key, nonce):
    url = token_request_url(f"{ORIGIN}/v2/token", SERVICE, SCOPE, TS, nonce)

    with pytest.raises(CredentialsInvalid, match="nonce"):
        verify_token_request(sign_token_request(key, url), url.removeprefix(ORIGIN), [ORIGIN], TS)


def test_the_published_api_request_is_accepted():
    assert verify_api_request(API_HEADER, "POST", API_TARGET, TS).fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("header", "method", "target", "now"),
    [
        pytest.param(API_HEADER, "GET", API_TARGET, TS, id="method"),
        pytest.param(API_HEADER, "POST", "/api/you?ts=1700000000", TS, id="path"),
        pytest.param(API_HEADER, "POST", "/api/me?ts=1700000001", TS, id="ts"),
        pytest.param(API_HEADER, "POST", "/api/me", TS, id="no ts"),
        pytest.param(API_HEADER, "POST", API_TARGET, TS + 301, id="late"),
        pytest.param(flipped(API_HEADER), "POST", API_TARGET, TS, id="one bit"),
        pytest.param(TOKEN_HEADER, "POST", API_TARGET, TS, id="a token request's signature"),
    ],
)
def test_any_other_api_request_is_refused(header, method, target, now):
    with pytest.raises(CredentialsInvalid):
        verify_api_request(header, method, target, now)
