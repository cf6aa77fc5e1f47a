"""A mirror brought up to date as a whole, by hand or by the janitor, whatever the upstream lists or refuses to."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select, update

from migrations.run import upgrade
from registry.cli.mirror import mirror
from registry.janitor import tidy
from registry.mirror.cache import MirrorCache, Watermarks
from registry.mirror.mirrors import Mirror, Mirrors
from registry.mirror.models import MirrorRead
from registry.mirror.schedule import RETRY_S, Schedule, Syncing
from registry.mirror.sync import Synced
from registry.remotes.http import Origin
from storage.db import Database
from storage.digest import Digest
from storage.layout import BLOBS
from storage.models import BlobLink, Object
from storage.reference import RepositoryName
from storage.store import Store
from tests.backends import driver_of
from tests.client import Client
from tests.databases import DATABASE, NO_SERVER, url_of
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.faults import Holds, Says
from tests.faulty_registry import Fault, FaultyRegistry, faulty_registry
from tests.registry.mirror_nodes import INDEX, MANIFEST, Clock, Node, Upstream, image, node_of
from tests.registry.transfers import CONFIG, add_model
from tests.server import Server, running_server, wait_for
from tests.storage import conftest as storage_fixtures

# a database as the store's own tests have it
database_url = storage_fixtures.database_url
database = storage_fixtures.database

on_both = pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=NO_SERVER)], indirect=True)
NEAR = RepositoryName("near/model")
_NUMBERS = itertools.count()


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", DATABASE))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, FaultProxy, Path]]:
    folder = tmp_path_factory.mktemp("far")
    with running_server(folder / "data") as server, fault_proxy(server.host) as proxy:
        token_path = folder / "token"
        token_path.write_text(server.admin_token)
        yield server, proxy, token_path


@pytest.fixture
def upstream(far: tuple[Server, FaultProxy, Path]) -> Upstream:
    far[1].rules.clear()
    far[1].heard.clear()
    return Upstream(*far, f"team{next(_NUMBERS)}")


@pytest.fixture
def node(database: Database, tmp_path: Path, upstream: Upstream) -> Node:
    at = Origin.of(upstream.proxy.url)
    return node_of(
        database, tmp_path / "data", Mirror(RepositoryName("far"), at, upstream.path, token_path=upstream.token_path)
    )


@on_both
def test_everything_below_the_mirrors_path_comes_and_then_only_tags_are_asked_for(upstream, node):
    first = upstream.push("one", "v1", b"config 1", b"weights 1")
    upstream.push("one", "latest", b"config 1", b"weights 1")
    second = upstream.push("deep/er", "v2", b"config 2", b"weights 2")
    replace(upstream, path=f"{upstream.path}x").push("not-below", "v1", b"config 3")

    synced = node.sync()

    assert synced == Synced(tags=3, blobs=4, size=len(b"config 1weights 1") * 2)
    assert [node.holds("one", "v1"), node.holds("one", "latest"), node.holds("deep/er", "v2")] == [first, first, second]
    assert node.holds("not-below", "v1") is None
    upstream.forget()
    assert node.sync() == Synced(tags=3)
    assert upstream.asked("HEAD", "/manifests/") == 3
    assert upstream.asked("GET", "/manifests/") == upstream.asked("GET", "/blobs/") == 0


def test_a_tag_that_moved_is_followed_and_only_new_blobs_come(upstream, node):
    upstream.push("model", "v1", b"config", b"old weights")
    node.sync()
    moved = upstream.push("model", "v1", b"config", b"new weights")

    assert node.sync() == Synced(tags=1, blobs=1, size=len(b"new weights"))

    assert node.holds("model", "v1") == moved
    assert node.lines == [f"far/model:v1: fetched 1 blobs, {len(b'new weights')} bytes"]


def test_what_the_upstream_deleted_stays(upstream, node):
    kept = upstream.push("model", "v1", b"config", b"weights")
    upstream.push("model", "v2", b"config 2")
    node.sync()
    assert upstream.client.request("DELETE", f"/v2/{upstream.path}/model/manifests/v1").status == 202

    assert node.sync() == Synced(tags=1)

    assert node.holds("model", "v1") == kept


@pytest.mark.parametrize(
    ("patterns", "allow", "expected"),
    [
        ((), (), {"llama:8b", "llama:70b", "phi:8b"}),
        (("llama",), (), {"llama:8b", "llama:70b"}),
        (("*:8b",), (), {"llama:8b", "phi:8b"}),
        ((), ("phi", "llama:7?b"), {"phi:8b", "llama:70b"}),
        (("llama:*",), ("*:8b",), {"llama:8b"}),
        (("llama",), ("phi",), set()),
    ],
)
def test_patterns_choose_what_comes(upstream, database, tmp_path, patterns, allow, expected):
    for model, tag in (("llama", "8b"), ("llama", "70b"), ("phi", "8b")):
        upstream.push(model, tag, f"config {model} {tag}".encode())
    at = Origin.of(upstream.proxy.url)
    mirror = Mirror(RepositoryName("far"), at, upstream.path, patterns=patterns, token_path=upstream.token_path)
    node = node_of(database, tmp_path / "data", mirror)

    synced = node.sync(*allow)

    here = {f"{model}:{tag}" for model in ("llama", "phi") for tag in ("8b", "70b") if node.holds(model, tag)}
    assert here == expected
    assert synced.tags == synced.blobs == len(expected)


def test_of_an_index_its_manifests_and_their_blobs_come(upstream, node):
    children = [
        upstream.push("model", f"only-{name}", name.encode(), b"weights of " + name.encode()) for name in ("a", "b")
    ]
    sizes = [len(image(name, b"weights of " + name)) for name in (b"a", b"b")]
    listed = [{"mediaType": MANIFEST, "digest": str(d), "size": s} for d, s in zip(children, sizes, strict=True)]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    assert upstream.client.put_manifest(f"{upstream.path}/model", "multi", index, INDEX).status == 201

    assert node.sync("model:multi") == Synced(tags=1, blobs=4, size=len(b"ab") + 2 * len(b"weights of a"))

    assert node.holds("model", "multi") == Digest.of(index)
    assert [
        node.store.repositories.get_manifest(RepositoryName("far/model"), each).digest for each in children
    ] == children


def test_what_fails_is_told_and_the_rest_goes_on(upstream, node):
    upstream.push("bad", "v1", b"config", b"weights that will not come")
    good = upstream.push("good", "v1", b"config", b"weights")
    refused = str(Digest.of(b"weights that will not come"))
    upstream.proxy.when(lambda heard: refused in heard.path, Says(404), times=100)

    synced = node.sync()

    assert (synced.tags, synced.failures) == (1, 1)
    assert node.holds("good", "v1") == good
    assert any(line.startswith("far/bad:v1: ") and refused in line for line in node.lines)


def test_an_upstream_that_is_gone_is_not_asked_for_every_tag_and_what_is_here_stays(upstream, node):
    kept = {tag: upstream.push("model", tag, tag.encode()) for tag in ("v1", "v2", "v3", "v4", "v5")}
    node.sync()
    upstream.proxy.when(lambda heard: "/manifests/" in heard.path, Says(503), times=100)
    upstream.forget()

    synced = node.sync()

    assert synced.tags == 0 and synced.failures == 4
    assert "does not answer; the rest is left" in node.lines[-1]
    assert upstream.asked("HEAD", "/manifests/") == 9  # three tags, three times each
    assert {tag: node.holds("model", tag) for tag in kept} == kept


def test_no_more_comes_than_the_mirrors_may_keep(upstream, node):
    small = upstream.push("a-small", "v1", b"config")
    upstream.push("large", "v1", b"weights " * 1000)

    synced = node.sync(most_bytes=1000)

    assert synced == Synced(tags=1, blobs=1, size=len(b"config"), failures=1)
    assert node.holds("a-small", "v1") == small
    assert "TONNAGE_MIRROR_LOW" in node.lines[-1]


@pytest.fixture
def bare(database: Database, tmp_path: Path) -> Iterator[tuple[FaultyRegistry, Node]]:
    """A registry that lists nothing, and a mirror of it."""
    with faulty_registry() as registry:
        mirror = Mirror(RepositoryName("far"), Origin.of(registry.url), patterns=("a/m", "a/other:v9", "wild/*"))
        yield registry, node_of(database, tmp_path / "data", mirror)


def test_where_nothing_is_listed_the_names_in_patterns_and_what_is_here_are_asked_for(bare):
    registry, node = bare
    add_model(registry, "latest", b"weights")
    add_model(registry, "v9", b"weights 9")

    synced = node.sync()

    assert (synced.tags, synced.failures) == (2, 0)
    assert node.holds("a/m", "latest") and node.holds("a/other", "v9")
    assert node.holds("a/m", "v9") is None
    add_model(registry, "latest", b"weights, moved")
    assert node.sync() == Synced(tags=2, blobs=1, size=len(b"weights, moved"))


def test_a_tag_that_was_only_guessed_need_not_be_there(bare):
    registry, node = bare
    add_model(registry, "v9", b"weights 9")

    assert node.sync("a/other") == Synced(tags=1, blobs=2, size=len(b"weights 9" + CONFIG))


def test_a_tag_that_a_pattern_names_and_nobody_has_is_a_failure(bare):
    _, node = bare

    synced = node.sync()

    assert (synced.tags, synced.failures) == (0, 1)
    assert node.lines == [line for line in node.lines if line.startswith("far/a/other:v9: ")]


def test_names_of_a_hostile_catalog_lead_nowhere(bare):
    registry, node = bare
    add_model(registry, "latest", b"weights")
    absurd = ["../../../etc", "UPPER/case", "a" * 300, "a/m/", 5, None, "unwanted/model", "a/m"]
    registry.faults.append(Fault("GET", "/_catalog", status=200, body=json.dumps({"repositories": absurd}).encode()))

    synced = node.sync()

    assert (synced.tags, synced.failures) == (1, 0)
    assert not any(word in request.target for request in registry.requests for word in ("etc", "UPPER", "unwanted"))


@pytest.mark.parametrize("link", ["</v2/_catalog?n=1000>; rel=next", "<http://127.0.0.1:1/v2/_catalog>; rel=next"])
def test_a_hostile_catalog_is_told_and_what_can_be_named_comes_all_the_same(bare, link):
    registry, node = bare
    add_model(registry, "latest", b"weights")
    add_model(registry, "v9", b"weights 9")
    body = json.dumps({"repositories": ["b/b"]}).encode()
    registry.faults.append(Fault("GET", "/_catalog", times=9, status=200, headers={"Link": link}, body=body))

    synced = node.sync()

    assert (synced.tags, synced.failures) == (2, 1)
    assert "the list of repositories" in node.lines[0]
    assert registry.count("GET", "/_catalog") == 1


def test_the_longest_prefix_has_a_repository(upstream, node):
    upstream.push("own/model", "v1", b"config")
    upstream.push("other/model", "v1", b"config")
    nearer = Mirror(RepositoryName("far/own"), Origin.of("http://127.0.0.1:1"))
    Mirrors(node.store.database).add(nearer)

    assert node.sync() == Synced(tags=1, blobs=1, size=len(b"config"))
    assert node.holds("own/model", "v1") is None


def test_the_janitor_syncs_what_is_due_and_tries_failures_again(upstream, node, caplog):
    caplog.set_level("INFO", "tonnage.mirror")
    pushed = upstream.push("model", "v1", b"config", b"weights")
    clock = Clock()
    schedule = Schedule(node.store.database, clock=clock)
    syncing = Syncing(node.means, schedule)
    syncing.run()
    assert node.holds("model", "v1") is None  # nobody has asked for a schedule
    schedule.put(RepositoryName("far"), 6 * 3600.0)

    syncing.run()

    assert node.holds("model", "v1") == pushed
    assert "sync of far: tags=1 blobs=2" in caplog.text
    upstream.forget()
    syncing.run()
    assert upstream.proxy.heard == []
    moved = upstream.push("model", "v1", b"config", b"weights, moved")
    refused = str(Digest.of(b"weights, moved"))
    rule = upstream.proxy.when(lambda heard: refused in heard.path, Says(404), times=100)
    clock.now += 7 * 3600
    syncing.run()
    assert node.holds("model", "v1") is None
    upstream.proxy.rules.remove(rule)
    clock.now += RETRY_S
    syncing.run()
    assert node.holds("model", "v1") == moved


def test_a_turn_of_the_janitor_goes_on_beside_a_sync(upstream, node):
    upstream.push("model", "v1", b"config")
    Schedule(node.store.database).put(RepositoryName("far"), 3600.0)
    held = Holds(for_good=False)
    upstream.proxy.when(lambda heard: "/blobs/" in heard.path, held)
    syncing = Syncing(node.means, Schedule(node.store.database))

    syncing.start()
    assert held.is_held.wait(30)
    unwanted = node.store.blobs.put(NEAR, b"unwanted")
    node.store.blobs.unlink(NEAR, unwanted.digest)
    tidy(node.store, Watermarks(1, 0))

    assert list(node.store.driver.keys(BLOBS)) == []
    held.release()
    wait_for(lambda: not any(thread.name == "sync" for thread in threading.enumerate()), 30, "the sync to end")
    assert node.holds("model", "v1") is not None


def test_beside_a_real_mirror_a_sync_fills_it_and_what_was_evicted_comes_again(upstream, tmp_path):
    weights = random.Random(1).randbytes(300_000)
    upstream.push("model", "v1", b"config", weights)
    blob = f"/v2/far/model/blobs/{Digest.of(weights)}"

    def sent() -> int:
        return upstream.proxy.traffic("GET", str(Digest.of(weights))).down // len(weights)

    with running_server(mirroring_data(tmp_path / "near", upstream)) as near:
        client = Client(near.host, near.admin_token)

        told = near.run("mirror", "sync", "far").stdout
        assert told.endswith("1 tags up to date, fetched 2 blobs, 300006 bytes\n")
        forget_reads(near)
        assert client.request("GET", blob).body == weights
        assert sent() == 1
        assert last_read(near) > time.time() - 600

        assert evict_all(near) == 300_006
        assert client.request("GET", blob).body == weights
        assert sent() == 2


def mirroring_data(folder: Path, upstream: Upstream) -> Path:
    """A data folder of a server that mirrors it."""
    folder.mkdir()
    url = url_of(folder)
    upgrade(url)
    database = Database(url)
    at = Origin.of(upstream.proxy.url)
    Mirrors(database).add(Mirror(RepositoryName("far"), at, upstream.path, token_path=upstream.token_path))
    database.close()
    return folder


def forget_reads(server: Server) -> None:
    with rows_of(server) as database, database.write() as session:
        session.execute(update(MirrorRead).values(read_at=1.0))


def last_read(server: Server) -> float:
    with rows_of(server) as database, database.read() as session:
        return float(session.scalar(select(func.max(MirrorRead.read_at))) or 0)


def evict_all(server: Server) -> int:
    """As if a day had passed, and hardly anything might be kept; how many bytes went."""
    with rows_of(server) as database:
        with database.write() as session:
            for table in (Object, BlobLink):
                session.execute(update(table).values(lease_until=time.time() - 1))
        return MirrorCache(Store(database, driver_of(server.data)), Watermarks(1, 0)).trim()


@contextmanager
def rows_of(server: Server) -> Iterator[Database]:
    database = Database(url_of(server.data))
    try:
        yield database
    finally:
        database.close()


def command(node: Node, *arguments: str) -> Result:
    before = os.umask(0o022)  # the command narrows it
    try:
        flags = ("--data", node.config.data, "--database-url", str(node.store.database.engine.url))
        return CliRunner().invoke(mirror, ["sync", *arguments, *flags], standalone_mode=False)
    finally:
        os.umask(before)


def test_the_command_says_what_came_and_what_did_not(upstream, node):
    upstream.push("model", "v1", b"config")
    upstream.push("bad", "v1", b"will not come")
    refused = str(Digest.of(b"will not come"))
    upstream.proxy.when(lambda heard: refused in heard.path, Says(404), times=100)

    only, everything = command(node, "far", "--allow", "model"), command(node)

    assert (only.return_value, everything.return_value) == (0, 1)
    assert only.stdout.endswith("1 tags up to date, fetched 1 blobs, 6 bytes\n")
    assert everything.stdout.endswith("1 tags up to date, fetched 0 blobs, 0 bytes, 1 failures\n")


def test_the_command_sets_a_schedule_and_syncs_nothing(upstream, node):
    upstream.push("model", "v1", b"config")

    def every_s() -> float | None:
        return Mirrors(node.store.database).get(RepositoryName("far")).sync_every_s

    assert command(node, "--schedule", "6h").stdout == "far: sync every 21600 s\n"
    assert every_s() == 6 * 3600
    assert command(node, "far", "--schedule", "off").stdout == "far: sync off\n"
    assert every_s() is None
    assert upstream.proxy.heard == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("Far",),
        ("--schedule", "1s"),
        ("--schedule", "soon"),
        ("--schedule", "-1"),
        ("--schedule", "1h", "--allow", "a"),
    ],
)
def test_the_command_refuses_what_makes_no_sense_in_one_line(node, arguments):
    result = command(node, *arguments)

    assert isinstance(result.exception, click.ClickException)
    assert "\n" not in result.exception.format_message()
