"""Requests signed with an ed25519 key, as the `ollama` client sends them.

Source: the Ollama registry protocol, "Token request" and "API signatures".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

from auth.errors import KeyInvalid, SignatureInvalid
from auth.keys import SIGNATURE_BYTES, PublicKey, decode_base64, token_request_text

WINDOW_S: Final = 300  # how far a client's clock may be off, and how long a nonce must be remembered

_MAX_HEADER: Final = 256  # characters; 157 are needed
_MAX_FIELDS: Final = 128
_TS: Final = re.compile(r"[0-9]{1,12}")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,86}")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """Proof that the holder of `key` made this very request; `nonce` must not have been seen."""

    key: PublicKey
    nonce: str


def is_signature_header(authorization: str) -> bool:
    """Whether the Authorization value has the form `<key>:<signature>`, without a scheme word."""
    return " " not in authorization and authorization.count(":") == 1


def verify_token_request(authorization: str, target: str, origins: Iterable[str], now: float) -> SignedRequest:
    """A signed GET of a token. Raises SignatureInvalid, KeyInvalid.

    target: path and query, byte for byte as they came. origins: `scheme://host[:port]` by which the client may have
    addressed us; a proxy may hide the scheme, so each is tried.
    """
    key, signature = _parse_header(authorization)
    fields = _fields(target)
    if not any(key.verify(signature, token_request_text(f"{origin}{target}")) for origin in origins):
        raise SignatureInvalid("the signature is not by this key over this request")
    _check_clock(fields, now)
    nonce = _single(fields, "nonce")
    if not _NONCE.fullmatch(nonce):
        raise SignatureInvalid("a signed request needs a nonce of 16 random bytes, base64url")
    return SignedRequest(key, nonce)


def verify_api_request(authorization: str, method: str, target: str, now: float) -> PublicKey:
    """The key that signed `METHOD,target`; body and host are not covered. Raises SignatureInvalid, KeyInvalid."""
    key, signature = _parse_header(authorization)
    fields = _fields(target)
    if not key.verify(signature, f"{method},{target}".encode()):
        raise SignatureInvalid("the signature is not by this key over this request")
    _check_clock(fields, now)
    return key


def _parse_header(authorization: str) -> tuple[PublicKey, bytes]:
    blob, colon, signature_text = authorization.partition(":")
    if not colon or len(authorization) > _MAX_HEADER:
        raise SignatureInvalid("expected `<key>:<signature>`")
    key = PublicKey.from_blob(blob)
    try:
        signature = decode_base64(signature_text)
    except KeyInvalid as error:
        raise SignatureInvalid(f"the signature is {error}") from None
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid("an ed25519 signature has 64 bytes")
    return key, signature


def _fields(target: str) -> dict[str, list[str]]:
    try:
        return parse_qs(target.partition("?")[2], keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise SignatureInvalid("too many query parameters") from None


def _single(fields: dict[str, list[str]], name: str) -> str:
    """The value of a parameter that must be there once: of two, who knows which one the signer meant."""
    values = fields.get(name, [])
    if len(values) != 1:
        raise SignatureInvalid(f"a signed request has one {name}")
    return values[0]


def _check_clock(fields: dict[str, list[str]], now: float) -> None:
    ts = _single(fields, "ts")
    if not _TS.fullmatch(ts):
        raise SignatureInvalid("ts must be Unix seconds")
    off_s = int(ts) - int(now)
    if abs(off_s) > WINDOW_S:
        here = datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise SignatureInvalid(f"the request was signed {-off_s} s ago by this server's clock, which says {here}")
