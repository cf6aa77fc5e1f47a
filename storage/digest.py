"""Digests: the names of exact bytes, and hashing that can be put down and taken up again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import rehashes

from storage.errors import DigestInvalid

_ENCODED: Final = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}
_HASHERS: Final[dict[str, Any]] = {"sha256": rehashes.PySha256, "sha512": rehashes.PySha512}

ALGORITHMS: Final = tuple(_ENCODED)


def check_algorithm(algorithm: str) -> str:
    """`algorithm` itself, if we can hash with it. Raises DigestInvalid."""
    if algorithm not in _ENCODED:
        raise DigestInvalid("unsupported digest algorithm", algorithm=algorithm[:32])
    return algorithm


@dataclass(frozen=True, slots=True)
class Digest:
    """`algorithm:encoded`, valid by construction. Spec: "Digests".

    A sha512 and a sha256 of the same bytes are two identities; neither is ever turned into the other.
    """

    algorithm: str
    encoded: str

    def __post_init__(self) -> None:
        if not _ENCODED[check_algorithm(self.algorithm)].fullmatch(self.encoded):
            raise DigestInvalid("malformed digest", algorithm=self.algorithm)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises DigestInvalid."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise DigestInvalid("malformed digest", digest=text[:160])
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        return cls(algorithm, hashlib.new(check_algorithm(algorithm), data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


class Hasher:
    """One stream under one or more algorithms; its state fits in a row.

    Takes `bytes` only (the native hashers refuse views) and releases the GIL while it works.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashers: dict[str, Any] = {name: _HASHERS[check_algorithm(name)]() for name in algorithms}

    @classmethod
    def resume(cls, states: Mapping[str, str]) -> Hasher:
        """The hasher whose `states()` these are."""
        hasher = cls(())
        hasher._hashers = {name: _HASHERS[name].deserialize(bytes.fromhex(state)) for name, state in states.items()}
        return hasher

    @property
    def algorithms(self) -> frozenset[str]:
        return frozenset(self._hashers)

    def update(self, data: bytes) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)

    def drop(self, algorithm: str) -> None:
        """Hash on without `algorithm`."""
        self._hashers.pop(algorithm, None)

    def states(self) -> dict[str, str]:
        """JSON-ready: algorithm → hexadecimal state."""
        return {name: hasher.serialize().hex() for name, hasher in self._hashers.items()}

    def digests(self) -> dict[str, Digest]:
        """Of the bytes so far, by algorithm; hashing may go on."""
        copies = Hasher.resume(self.states())._hashers  # to finalise ends a native hasher
        return {name: Digest(name, hasher.finalize()) for name, hasher in copies.items()}
