"""POST /api/pull of mirrored models, and of one whose repository becomes a mirror's meanwhile, in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from flask import Flask
from sqlalchemy import select, update

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from registry.mirror.mirrors import Mirrors, parse_mirror
from registry.mirror.models import MirrorRead
from registry.remotes.http import Origin
from registry.remotes.statuses import TransferFailed
from registry.remotes.stored_pull import StoredPull
from runtime.api.names import parse_name
from runtime.errors import QueueFull
from storage.db import Database
from storage.digest import Digest
from storage.errors import ManifestUnknown
from storage.manifest import OCI_INDEX
from storage.models import Blob, BlobLink, Object
from storage.store import Store
from tests.databases import url_of
from tests.faulty_registry import FaultyRegistry, faulty_registry
from tests.registry.transfers import JSON, MIB, add_model

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class World:
    """A process that mirrors the registry below `hub`."""

    app: Flask
    registry: FaultyRegistry

    @property
    def store(self) -> Store:
        store = self.app.extensions["tonnage.store"]
        assert isinstance(store, Store)
        return store

    def pull(self, model: str) -> JSON:
        answer: JSON = self.app.test_client().post("/api/pull", json={"model": model, "stream": False}).json
        return answer

    def index(self, tag: str, child: str) -> None:
        """An index at the registry that lists what another tag there names."""
        raw, media_type = self.registry.manifests[child]
        media_type = OCI_INDEX if media_type == OCI_INDEX else DOCKER
        digest = str(Digest.of(raw))
        self.registry.manifests[digest] = (raw, media_type)
        listed = {"mediaType": media_type, "digest": digest, "size": len(raw)}
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}
        self.registry.manifests[tag] = (json.dumps(body).encode(), OCI_INDEX)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mirror-pull")
    url = url_of(folder)
    upgrade(url)
    with faulty_registry() as registry:
        Mirrors(Database(url)).add(parse_mirror("hub", f"{registry.url}/up"))
        named = (Origin.of(registry.url).authority,)
        config = Config(data=str(folder), database_url=url, access="open", allowed_hosts=named)
        config.keys_path.mkdir()
        yield World(create_app(config), registry)


def test_what_is_here_already_counts_as_pulled_and_can_still_be_given_up(world: World) -> None:
    digests, repository = add_model(world.registry, "v1", b"here"), parse_name("hub/here").repository
    for digest in digests:
        world.store.blobs.put(repository, world.registry.blobs[digest], principal="mirror")
    named = select(Blob.object_id).where(Blob.digest.in_(digests))
    with world.store.database.write() as session:
        session.execute(update(Object).where(Object.id.in_(named)).values(lease_until=1.0))
        session.execute(update(BlobLink).values(lease_until=1.0))

    assert world.pull("hub/here:v1") == {"status": "success"}

    with world.store.database.read() as session:
        assert max(session.scalars(select(Object.lease_until).where(Object.id.in_(named)))) <= 1.0
        pulled = select(Blob.digest).join(MirrorRead, MirrorRead.blob_id == Blob.id)
        assert set(session.scalars(pulled)) >= set(digests)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_model_of_an_index_comes_and_of_an_index_of_indexes_too(world: World, depth: int) -> None:
    digests = add_model(world.registry, "v1", b"within %d" % depth)
    world.index("depth1", "v1")
    world.index("depth2", "depth1")

    assert world.pull(f"hub/within{depth}:depth{depth}") == {"status": "success"}

    repository = parse_name(f"hub/within{depth}").repository
    for digest in digests:
        assert world.store.blobs.stat(repository, Digest.parse(digest)).size


def test_an_index_too_deep_to_be_a_model_is_refused(world: World) -> None:
    add_model(world.registry, "v1", b"deep")
    for tag, child in (("deep1", "v1"), ("deep2", "deep1"), ("deep3", "deep2")):
        world.index(tag, child)

    assert world.pull("hub/deep:deep3") == {"error": "pull model manifest: an index of indexes names no model"}


def test_a_pull_takes_a_place_among_the_transfers(world: World) -> None:
    add_model(world.registry, "v1", b"busy")
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(world.app.extensions["tonnage.remotes"].slot())
            except QueueFull:
                break
        assert "server busy" in world.pull("hub/busy:v1")["error"]

    assert world.pull("hub/busy:v1") == {"status": "success"}


def test_a_pull_whose_repository_has_become_a_mirrors_meanwhile_writes_nothing(world: World) -> None:
    add_model(world.registry, "v1", bytes(MIB))
    name = f"{Origin.of(world.registry.url).authority}/a/late:v1"
    stored, remotes = parse_name(name), world.app.extensions["tonnage.remotes"]
    pull = StoredPull(
        remotes,
        world.store,
        remotes.place(name, stored, insecure=True),
        principal="somebody",
        may_read=lambda _: True,
        may_write=lambda repository: repository != stored.repository,
        is_gone=lambda: False,
        stored=lambda _: pytest.fail("nothing is to be stored"),
    )

    with pytest.raises(TransferFailed, match="has become a mirror's"):
        list(pull.run())

    with pytest.raises(ManifestUnknown):
        world.store.repositories.get_manifest(stored.repository, stored.tag)
