"""OpenSSH ed25519 keys: the identity of publishers, and of this server towards other registries.

Source: RFC 8709 (the key's encoding), the Ollama registry protocol, "Key material" and "Token request".
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from auth.errors import KeyInvalid
from storage.durable import sync_folder

KEY_TYPE: Final = "ssh-ed25519"
SIGNATURE_BYTES: Final = 64
MAX_LINE: Final = 8 * 2**10  # characters; a key is 80, the rest is comment
MAX_PEM_BYTES: Final = 64 * 2**10

_BLOB_PREFIX: Final = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
_BLOB_BYTES: Final = len(_BLOB_PREFIX) + 32
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
# The signed text ends with a digest of the request's body; a token request has none.
_EMPTY_BODY: Final = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


def decode_base64(text: str) -> bytes:
    """Strict: the standard alphabet, padded, and the one spelling its bytes have. Raises KeyInvalid."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise KeyInvalid("not base64") from None
    if base64.b64encode(data).decode() != text:  # stray bits in the last character
        raise KeyInvalid("not base64 as it is written")
    return data


def is_fingerprint(text: str) -> bool:
    """Whether `text` looks like what `ssh-keygen -l` prints."""
    return _FINGERPRINT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An ed25519 public key; `raw` is its 32 bytes."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """A line of an authorized_keys or .pub file, with or without comment, or the base64 blob alone.

        Raises KeyInvalid.
        """
        if len(text) > MAX_LINE:
            raise KeyInvalid("too long for a public key", max_characters=MAX_LINE)
        words = text.split(maxsplit=2)
        if "\n" in text.strip():
            raise KeyInvalid("expected one key on one line")
        if len(words) >= 2 and words[0] == KEY_TYPE:
            return cls.from_blob(words[1])
        if len(words) == 1:
            return cls.from_blob(words[0])
        raise KeyInvalid("not a public key: expected `ssh-ed25519 AAAA…`; keys of other types are not accepted")

    @classmethod
    def from_blob(cls, text: str) -> Self:
        """The base64 blob. Raises KeyInvalid."""
        blob = decode_base64(text)
        if len(blob) != _BLOB_BYTES or not blob.startswith(_BLOB_PREFIX):
            raise KeyInvalid("not an ed25519 public key; keys of other types are not accepted")
        return cls(blob[len(_BLOB_PREFIX) :])

    @property
    def blob(self) -> bytes:
        return _BLOB_PREFIX + self.raw

    @property
    def blob_base64(self) -> str:
        return base64.b64encode(self.blob).decode()

    @property
    def line(self) -> str:
        """As a .pub file has it."""
        return f"{KEY_TYPE} {self.blob_base64}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def verifying_key(self) -> Ed25519PublicKey:
        """For the JWT library, which verifies by itself. Raises ValueError if the bytes are no point of the curve."""
        return Ed25519PublicKey.from_public_bytes(self.raw)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature`, 64 raw bytes, is by this key over `message`."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            self.verifying_key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """An ed25519 private key; its bytes leave it only by `save`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.fingerprint})"

    @classmethod
    def generate(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key whose secret is these 32 bytes. Raises KeyInvalid."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(seed))
        except ValueError:
            raise KeyInvalid("an ed25519 secret has 32 bytes") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """An unencrypted OpenSSH PEM file. Raises KeyInvalid, OSError."""
        with path.open("rb") as file:
            pem = file.read(MAX_PEM_BYTES + 1)
        if len(pem) > MAX_PEM_BYTES:
            raise KeyInvalid(f"{path} is too long for a private key")
        try:
            key = load_ssh_private_key(pem, password=None)
        except TypeError:  # how cryptography says that a passphrase is missing
            raise KeyInvalid(f"{path} is encrypted; a key without a passphrase is needed") from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyInvalid(f"{path} is not an OpenSSH private key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyInvalid(f"{path} is not an ed25519 key; make one with: ssh-keygen -t ed25519 -N '' -f FILE")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write an OpenSSH PEM file, mode 0600, and `<path>.pub` beside it; each whole or not at all."""
        replace_file(path, self.pem, mode=0o600)
        replace_file(path.with_name(f"{path.name}.pub"), f"{self.public.line}\n".encode(), mode=0o644)

    @property
    def pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """For the JWT library, which signs by itself."""
        return self._key

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, message: bytes) -> bytes:
        """64 raw bytes."""
        return self._key.sign(message)


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` at `path`; readers see the old file or the whole new one."""
    staged = stage_file(path, data, mode=mode)
    try:
        staged.replace(path)
    except OSError:
        staged.unlink()
        raise
    sync_folder(path.parent)


def stage_file(path: Path, data: bytes, *, mode: int) -> Path:
    """A durable file beside `path` under a name of its own, never readable for others than `mode` says."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    return staged


def token_request_url(realm: str, service: str, scope: str, ts: int, nonce: str) -> str:
    """The URL that asks `realm` for a token: its own query and ours, keys sorted, form-encoded.

    scope: as in the challenge; each space-separated part becomes a parameter. An empty one is sent too.
    """
    pairs = [("nonce", nonce), *(("scope", each) for each in scope.split(" ")), ("service", service), ("ts", str(ts))]
    base, mark, own = realm.partition("?")
    if mark and own:
        pairs = sorted([*parse_qsl(own, keep_blank_values=True, max_num_fields=64), *pairs], key=lambda pair: pair[0])
    return f"{base}?{urlencode(pairs)}"


def token_request_text(url: str) -> bytes:
    """What a token request to `url` signs."""
    return f"GET,{url},{_EMPTY_BODY}".encode()


def sign_token_request(key: PrivateKey, url: str) -> str:
    """The Authorization value of `GET url`: `<key blob>:<signature>`, without a scheme word."""
    signature = key.sign(token_request_text(url))
    return f"{key.public.blob_base64}:{base64.b64encode(signature).decode()}"
