"""Blobs that lie in another store than the registry that tells where: at addresses that are signed, and expire."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from email.message import Message

from tests.exchange import Fault, Heard, Said


class SignedAddresses:
    """A registry whose blobs lie in another store, at addresses that soon expire.

    `sends` is for the registry's proxy, `keeps` for the store's. That gets no credentials: the address stands for them.
    """

    def __init__(self, store: str, *, good_for: int) -> None:
        """good_for: an address is refused once the store has had so many requests since it was given."""
        self._store, self._good_for = store, good_for
        self._lock, self._mark = threading.Lock(), f"/signed/{id(self)}/"
        self._given: list[tuple[int, Heard]] = []
        self._requests = 0
        self.refused = 0
        self.sends, self.keeps = _Sends(self), _Keeps(self)

    def give(self, heard: Heard) -> str:
        with self._lock:
            self._given.append((self._requests, heard))
            return f"{self._store}{self._mark}{len(self._given) - 1}"

    def gave(self, heard: Heard) -> bool:
        """Whether the request is for an address from here."""
        return heard.path.startswith(self._mark)

    def find(self, heard: Heard) -> Heard | None:
        """The request that the address was given for; None once it has expired."""
        with self._lock:
            given_at, asked = self._given[int(heard.path.rpartition("/")[2])]
            is_good = self._requests - given_at < self._good_for
            self._requests += 1
            self.refused += not is_good
            return asked if is_good else None


@dataclass
class _Sends(Fault):
    of: SignedAddresses

    def instead(self, heard: Heard) -> Said:
        return Said(307, headers=[("Location", self.of.give(heard))])


@dataclass
class _Keeps(Fault):
    of: SignedAddresses
    found: threading.local = field(default_factory=threading.local)

    def instead(self, heard: Heard) -> Said | None:
        self.found.asked = self.of.find(heard)
        return None if self.found.asked else Said(403, body=b"Request has expired")

    def heard(self, heard: Heard) -> Heard:
        """As the registry would have been asked, with the Range that the store was asked for."""
        asked: Heard = self.found.asked
        headers = Message()
        for name, value in asked.headers.items():
            if name.lower() != "range":
                headers[name] = value
        if heard.header("Range"):
            headers["Range"] = heard.header("Range")
        return Heard(heard.method, asked.target, headers)
