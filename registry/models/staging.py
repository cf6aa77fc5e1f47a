"""Blobs on their way into a model: those that come over /api name no repository, so each caller has a place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from auth.access import current_gate
from auth.scopes import format_scopes
from registry.services import store
from storage.blobs import BlobInfo
from storage.digest import Digest
from storage.errors import BlobReferenced, BlobUnknown, NameUnknown
from storage.reference import HoldingName, RepositoryName
from storage.store import Store


@dataclass(frozen=True, slots=True)
class Staging:
    """What one caller may make models of. may_read: whether a repository's blobs are among it."""

    store: Store
    place: HoldingName
    principal: str
    may_read: Callable[[RepositoryName], bool]

    @classmethod
    def of_caller(cls) -> Staging:
        """Of whoever sends the request in hand."""
        gate = current_gate()
        identity = gate.identify()
        # What was put here under all of somebody's rights is not for a bearer token that covers a few of them.
        ceiling = f" {format_scopes(identity.ceiling)}" if identity.ceiling is not None else ""
        place = HoldingName.of(f"{identity.principal}{ceiling}")
        return cls(store(), place, identity.principal, lambda name: gate.may_manage(name, "pull"))

    def find(self, digest: Digest) -> BlobInfo | None:
        """The blob, which stays for a day from now; None unless the caller staged it, or may read it elsewhere.

        That the bytes are here for somebody else is told to nobody.
        """
        with suppress(BlobUnknown, NameUnknown):
            return self.store.blobs.renew_lease(self.place, digest, principal=self.principal)
        for name in self.store.blobs.holders(digest):
            if self.may_read(name) and self._mount(digest, name):
                return self.store.blobs.stat(self.place, digest)
        return None

    def put(self, data: bytes) -> BlobInfo:
        """Stage a few bytes that are in memory."""
        return self.store.blobs.put(self.place, data, principal=self.principal)

    def holds(self, digest: Digest, name: RepositoryName | None = None) -> bool:
        """Whether the blob is staged, or is in the repository `name`."""
        try:
            self.store.blobs.stat(name or self.place, digest)
        except (BlobUnknown, NameUnknown):
            return False
        return True

    def release(self, digests: Iterable[str]) -> None:
        """Give blobs up before their day is over."""
        for digest in digests:
            with suppress(BlobUnknown, BlobReferenced, NameUnknown):
                self.store.blobs.unlink(self.place, Digest.parse(digest))

    def _mount(self, digest: Digest, source: RepositoryName) -> bool:
        return self.store.blobs.mount(digest, source=source, into=self.place, principal=self.principal)
