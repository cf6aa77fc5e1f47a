"""Fetches of single blobs into a store of this process, from a registry that fails where it is told to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.fetch import Fetch
from registry.remotes.http import Outbound
from registry.remotes.jobs import Job, started
from storage.digest import Digest
from storage.errors import BlobUnknown, NameUnknown
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.sessions import newest_session
from storage.store import Store
from tests.faulty_registry import FaultyRegistry, faulty_registry
from tests.stored_models import open_store

MIB: Final = 1024 * 1024
END_S: Final = 60.0
_NAMES: Final = count()


@dataclass
class Fetching:
    """A registry, a store, and a repository in it that nothing has been fetched into."""

    registry: FaultyRegistry
    store: Store
    name: RepositoryName = field(default_factory=lambda: RepositoryName(f"a/m{next(_NAMES)}"))

    def offer(self, size: int) -> tuple[Descriptor, bytes]:
        """A new blob of the registry's."""
        data = os.urandom(size)
        self.registry.add(data)
        return Descriptor("application/x", Digest.of(data), size), data

    def remote(self, http: Outbound) -> RemoteRepository:
        return RemoteRepository(Authenticator(http), self.registry.url, RepositoryName("a/m"))

    def job(self, blob: Descriptor) -> Job[None]:
        http = Outbound(connect_s=5, read_s=20)
        fetch = Fetch(self.remote(http), self.store, self.name, blob, principal="test", first_pause_s=0.01)
        return Job(fetch, abort=http.abort)

    def run(self, blob: Descriptor) -> None:
        """Raises what the fetch raises."""
        with started(self.job(blob)) as job:
            assert job.wait(END_S)
            job.result()

    def fetched(self, blob: Descriptor) -> bytes | None:
        """What the repository has of the blob."""
        try:
            with self.store.blobs.open(self.name, blob.digest) as file:
                return file.read()
        except (BlobUnknown, NameUnknown):
            return None

    def session(self, blob: Descriptor) -> str | None:
        return newest_session(self.store.database, self.name, f"pull:{blob.digest}"[:64])

    def offset(self, blob: Descriptor) -> int:
        """Bytes that are durable."""
        session = self.session(blob)
        return self.store.uploads.resume(self.name, session).offset if session else 0


@contextmanager
def fetching(folder: Path) -> Iterator[Fetching]:
    store = open_store(folder)
    with faulty_registry() as registry:
        yield Fetching(registry, store)
    store.database.close()


def threads_at_parts() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "part"]
