"""Who vouches for an archive: an ed25519 signature of its index, and so of every digest below it."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from auth.errors import KeyInvalid
from auth.keys import PrivateKey, PublicKey, decode_base64
from registry.carry.errors import ArchiveInvalid, SignerUnknown
from registry.carry.layout import INDEX_NAME, SIGNATURE_NAME

# The same key signs requests to other registries; no text of those begins like this.
_CONTEXT: Final = b"tonnage archive of models, index, 1\0"


def sign(key: PrivateKey, index: bytes) -> bytes:
    """The signature file of an archive with this index: the same bytes for the same key and index."""
    body = {"key": key.public.line, "signature": _base64(key.sign(_CONTEXT + index))}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def signer_of(raw: bytes, index: bytes) -> PublicKey:
    """Whose signature of `index` the file holds. Raises ArchiveInvalid: it says nothing, or does not fit."""
    try:
        body = json.loads(raw)
        key = PublicKey.parse(str(body["key"]))
        signature = decode_base64(str(body["signature"]))
    except (ValueError, KeyError, TypeError, RecursionError, KeyInvalid):
        raise ArchiveInvalid(f"{SIGNATURE_NAME} cannot be read") from None
    if not key.verify(signature, _CONTEXT + index):
        raise ArchiveInvalid(
            f"{INDEX_NAME} is not what {key.fingerprint} has signed: the archive was changed or damaged on its way"
        )
    return key


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose archives are brought in. own: this server's fingerprint, once it has a key."""

    own: str | None = None
    fingerprints: frozenset[str] = frozenset()
    any_signer: bool = False

    def admit(self, signer: PublicKey | None) -> str:
        """How the archive is signed, for people. Raises SignerUnknown, saying what to type."""
        if signer is None:
            if self.any_signer:
                return "not signed"
            raise SignerUnknown("the archive is not signed; if you know where it comes from, add --any-signer")
        fingerprint = signer.fingerprint
        if fingerprint == self.own:
            return f"signed by this server ({fingerprint})"
        if fingerprint in self.fingerprints or self.any_signer:
            return f"signed by {fingerprint}"
        raise SignerUnknown(
            f"the archive is signed by {fingerprint}, a key that you have not named; if that is what its export "
            f"printed, add --trust {fingerprint}"
        )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
