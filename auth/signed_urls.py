"""URLs that carry a right of their own: to read one blob of one repository, for a while.

The ollama client fetches the parts of a blob without credentials, from the address that the first answer gave it. Such
an address names who asked; what they may read is looked up again each time, so a revoked key or token ends its URLs.
Spec: the Ollama registry protocol, "HEAD and probe".
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from auth.errors import SignatureInvalid
from auth.key_set import KeySet

LIFE_S: Final = 24 * 3600  # the client asks for an address once and uses it for hours, also after a stall
_FIELDS: Final = ("by", "expires", "key", "signature")
_PURPOSE: Final = b"tonnage signed url v2 "  # no text of another purpose begins so: the same keys sign bearer tokens
_EXPIRES: Final = re.compile(r"[1-9][0-9]{0,11}")
_MAX_FIELD: Final = 128  # characters


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """Who an address was made for, and the rest of what it says."""

    principal: str
    expires: str
    key_id: str
    signature: str


class UrlSigner:
    """Makes addresses with the key that signs this node's bearer tokens, and checks those of every node."""

    def __init__(self, keys: KeySet, *, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now = now

    def sign(self, path: str, principal: str) -> str:
        """`path` with a query that lets whoever has it read there with the rights of `principal`."""
        # rounded: the same for some minutes, so that what keeps an address may find it again
        expires = str((int(self._now()) + LIFE_S) // 600 * 600 + 600)
        signature = self._keys.signing_key.sign(_text(path, principal, expires))
        return self.again(path, SignedUrl(principal, expires, self._keys.signing_id, _encode(signature)))

    @staticmethod
    def again(path: str, signed: SignedUrl) -> str:
        """The same address once more, and nothing else that came with it."""
        fields = (signed.principal, signed.expires, signed.key_id, signed.signature)
        return f"{path}?{urlencode(dict(zip(_FIELDS, fields, strict=True)), quote_via=quote, safe=':')}"

    def verify(self, method: str, path: str, query: Mapping[str, str]) -> SignedUrl:
        """For whom the address was made. path: as the server decoded it. Raises SignatureInvalid."""
        fields = {name: query.get(name, "") for name in _FIELDS}
        if method not in ("GET", "HEAD") or not all(0 < len(each) <= _MAX_FIELD for each in fields.values()):
            raise SignatureInvalid("not a signed address of this server")
        key = self._keys.public(fields["key"])
        if not _EXPIRES.fullmatch(fields["expires"]) or key is None:
            raise SignatureInvalid("not a signed address of this server")
        if not key.verify(_decode(fields["signature"]), _text(path, fields["by"], fields["expires"])):
            raise SignatureInvalid("the address was altered; ask for a new one")
        if self._now() >= int(fields["expires"]):
            raise SignatureInvalid("the address expired; ask for a new one")
        return SignedUrl(*(fields[name] for name in _FIELDS))


def _text(path: str, principal: str, expires: str) -> bytes:
    """What is signed. Fields end where their length says: no two requests have one text."""
    fields = (each.encode() for each in ("GET", path, principal, expires))
    return _PURPOSE + b"".join(f"{len(each)}:".encode() + each for each in fields)


def _encode(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """The inverse; empty for what it never gives."""
    try:
        signature = base64.urlsafe_b64decode(f"{text}==".encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        return b""
    return signature if _encode(signature) == text else b""


def is_signed(query: Mapping[str, str]) -> bool:
    """Whether the query claims to be an address of ours."""
    return "signature" in query
