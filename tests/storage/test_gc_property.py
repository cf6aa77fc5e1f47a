"""Whatever order pushes, deletes, sweeps and crashes come in: what was answered 201 and not deleted can be pulled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import BinaryIO

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, delete, event, select, update

from storage.db import Base, Database
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.drivers.protocol import Fence, no_fence
from storage.errors import BlobReferenced, BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from storage.gc import Collector
from storage.manifest import OCI_MANIFEST
from storage.models import BlobLink, Object
from storage.reference import RepositoryName, Tag
from storage.store import Store

REPOSITORIES = [RepositoryName("team/a"), RepositoryName("team/b")]
DATA = [b"one", b"two"]
BUDGET = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

repositories = st.sampled_from(REPOSITORIES)
blobs = st.sampled_from(DATA)
principals = st.sampled_from(["key:me", "key:you"])
tags = st.sampled_from([Tag("v1"), Tag("v2")])
layer_lists = st.lists(blobs, min_size=1, max_size=2, unique=True)
crashes = st.sampled_from([None, None, None, *range(1, 13)])  # at which of the points below; none at all


class Crash(BaseException):
    """The process ends here."""


class Fuse:
    """Counts the points where a process may die. Once it has, nothing it tries in its last moments takes effect."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.is_dead = False

    def point(self) -> None:
        if self.left is not None:
            self.left -= 1
            self.is_dead = self.is_dead or self.left <= 0
        if self.is_dead:
            raise Crash

    @contextmanager
    def lit(self, left: int | None) -> Iterator[None]:
        self.left, self.is_dead = left, False
        with suppress(Crash):
            yield
        self.left, self.is_dead = None, False


class MortalDatabase(Database):
    """May die before each transaction, just before its commit, and just after it."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        self._fuse = fuse

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self._fuse.point()
        with super().begin() as connection:
            yield connection
            self._fuse.point()
        self._fuse.point()


class MortalDriver(MemoryDriver):
    """May die before and after each change of the bytes."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    def write(self, key: str, source: BinaryIO) -> int:
        self._fuse.point()
        size = super().write(key, source)
        self._fuse.point()
        return size

    def publish(self, handle: str, *, size: int, fence: Fence = no_fence) -> None:
        self._fuse.point()
        super().publish(handle, size=size, fence=fence)
        self._fuse.point()

    def delete(self, key: str) -> None:
        self._fuse.point()
        super().delete(key)
        self._fuse.point()

    def discard(self, handle: str) -> None:
        self._fuse.point()
        super().discard(handle)
        self._fuse.point()


class Registry(RuleBasedStateMachine):
    """Two repositories, two principals, two blobs, one collector that may be stopped anywhere."""

    def __init__(self, database: MortalDatabase, fuse: Fuse) -> None:
        super().__init__()
        with database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
        self.fuse = fuse
        self.store = Store(database, MortalDriver(fuse))
        self.gc = Collector(database, self.store.driver)
        self.answered: dict[tuple[RepositoryName, Digest], list[bytes]] = {}
        self.promised: set[tuple[RepositoryName, bytes, str]] = set()  # told to be here, and the lease still runs
        self.marked: list[int] = []

    @rule(name=repositories, data=blobs, who=principals, crash=crashes)
    def push_blob(self, name: RepositoryName, data: bytes, who: str, crash: int | None) -> None:
        with self.fuse.lit(crash):
            upload = self.store.uploads.start(name, principal=who)
            upload.append(BytesIO(data))
            upload.commit(Digest.of(data))
            self.promised.add((name, data, who))

    @rule(name=repositories, layers=layer_lists, tag=tags, who=principals)
    def push_model(self, name: RepositoryName, layers: list[bytes], tag: Tag, who: str) -> None:
        """As clients do: ask for each blob, send those that are not here, then the manifest."""
        for data in layers:
            try:
                self.store.blobs.renew_lease(name, Digest.of(data), principal=who)
                self.promised.add((name, data, who))
            except (BlobUnknown, NameUnknown):
                self.push_blob(name, data, who, None)
        self.put_manifest(name, layers, tag, who, None)
        assert (name, Digest.of(image(layers))) in self.answered

    @rule(name=repositories, data=blobs, who=principals, crash=crashes)
    def head_then_skip(self, name: RepositoryName, data: bytes, who: str, crash: int | None) -> None:
        with self.fuse.lit(crash), suppress(BlobUnknown, NameUnknown):
            self.store.blobs.renew_lease(name, Digest.of(data), principal=who)
            self.promised.add((name, data, who))

    @rule(source=repositories, into=repositories, data=blobs, who=principals, crash=crashes)
    def mount(self, source: RepositoryName, into: RepositoryName, data: bytes, who: str, crash: int | None) -> None:
        with self.fuse.lit(crash):
            if self.store.blobs.mount(Digest.of(data), source=source, into=into, principal=who):
                self.promised.add((into, data, who))

    @rule(name=repositories, layers=layer_lists, tag=tags, who=principals, crash=crashes)
    def put_manifest(self, name: RepositoryName, layers: list[bytes], tag: Tag, who: str, crash: int | None) -> None:
        uses = {(name, data, who) for data in layers}
        is_promised = uses <= self.promised
        self.promised -= uses  # even if it dies before the answer: the leases may be consumed
        raw = image(layers)
        with self.fuse.lit(crash):
            try:
                self.store.repositories.put_manifest(name, tag, raw, OCI_MANIFEST, principal=who)
            except ManifestBlobUnknown:
                assert not is_promised, "a client was told that the blob is here, and its lease had not ended"
                return
            self.answered[name, Digest.of(raw)] = layers

    @rule(name=repositories, tag=tags, crash=crashes)
    def untag(self, name: RepositoryName, tag: Tag, crash: int | None) -> None:
        with self.fuse.lit(crash), suppress(ManifestUnknown, NameUnknown):
            self.store.repositories.delete_manifest(name, tag)

    @precondition(lambda self: self.answered)
    @rule(which=st.integers(0, 7), crash=crashes)
    def delete_manifest(self, which: int, crash: int | None) -> None:
        name, digest = list(self.answered)[which % len(self.answered)]
        del self.answered[name, digest]
        with self.fuse.lit(crash), suppress(ManifestUnknown, NameUnknown):
            self.store.repositories.delete_manifest(name, digest)

    @rule(name=repositories, data=blobs, crash=crashes)
    def delete_blob(self, name: RepositoryName, data: bytes, crash: int | None) -> None:
        with self.fuse.lit(crash), suppress(BlobReferenced, BlobUnknown, NameUnknown):
            self.promised -= {(name, data, "key:me"), (name, data, "key:you")}
            self.store.blobs.unlink(name, Digest.of(data))

    @rule()
    def a_day_passes(self) -> None:
        self.promised.clear()
        with self.store.database.write() as session:
            session.execute(update(Object).values(lease_until=Object.lease_until - 90_000))
            session.execute(update(BlobLink).values(lease_until=BlobLink.lease_until - 90_000))

    @rule(crash=crashes)
    def sweep(self, crash: int | None) -> None:
        with self.fuse.lit(crash):
            self.gc.sweep()

    @rule()
    def sweep_and_stop_at_the_marks(self) -> None:
        """Another node's sweep, between its two transactions."""
        for repository_id, blob_id, object_id in list(self.gc._idle_links(2**40)):
            self.gc.drop_link(repository_id, blob_id, object_id)
        with self.store.database.read() as session:
            objects = session.scalars(select(Object.id)).all()
        self.marked += [object_id for object_id in objects if self.gc.mark(object_id)]

    @rule(crash=crashes)
    def go_on_with_the_marks(self, crash: int | None) -> None:
        marked, self.marked = self.marked, []
        with self.fuse.lit(crash):
            for object_id in marked:
                self.gc.remove(object_id)

    @invariant()
    def what_was_answered_can_be_pulled(self) -> None:
        for (name, digest), layers in self.answered.items():
            assert self.store.repositories.get_manifest(name, digest).raw == image(layers)
            for data in layers:
                with self.store.blobs.open(name, Digest.of(data)) as reader:
                    assert reader.read() == data

    def teardown(self) -> None:
        """Nothing leaks either: with all manifests and leases gone, two sweeps leave no row of any object."""
        for name, digest in self.answered:
            self.store.repositories.delete_manifest(name, digest)
        with self.store.database.write() as session:
            session.execute(delete(Base.metadata.tables["manifests"]))
        self.a_day_passes()
        self.gc.sweep()
        self.gc.sweep()
        with self.store.database.read() as session:
            assert session.scalars(select(Object.id)).all() == []


def image(layers: list[bytes]) -> bytes:
    described = [
        {"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)} for data in layers
    ]
    return json.dumps({"schemaVersion": 2, "config": described[0], "layers": described}).encode()


def test_what_was_answered_201_can_be_pulled_whatever_happens(database_url):
    fuse = Fuse()
    database = MortalDatabase(database_url, fuse)
    if database.engine.dialect.name == "sqlite":  # the test kills no machine, and would wait for its disk
        event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))

    run_state_machine_as_test(lambda: Registry(database, fuse), settings=BUDGET)

    database.close()
