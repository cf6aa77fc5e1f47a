"""Repositories of a mirror: fetched while they are served, believed for a while, kept when the upstream is gone."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migrations.run import upgrade
from registry.cli import group
from registry.mirror.mirrors import Mirrors, WouldBePublic, parse_mirror
from storage.db import Database
from storage.errors import NameTaken
from storage.manifest import OCI_INDEX
from storage.namespaces import Namespaces
from storage.reference import RepositoryName, Tag
from storage.repositories import Repositories
from tests.client import Answer, Client
from tests.databases import url_of
from tests.faulty_registry import Fault, FaultyRegistry, faulty_registry
from tests.registry.transfers import add_model
from tests.server import Server, running_server, wait_for

MIB = 2**20


def random_bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class World:
    """A server with mirrors of one registry, each under a prefix of its own."""

    server: Server
    registry: FaultyRegistry
    prefix: str

    @property
    def client(self) -> Client:
        return Client(self.server.host)

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return self.client.request(method, f"/v2/{self.prefix}/a/m/{path}", headers=headers)

    def asked(self, method: str, path: str) -> int:
        return self.registry.count(method, path)


_KINDS = {  # by the beginning of the prefix; each test takes one that nobody has used
    "plain": {},
    "eager": {"ttl_s": 0},
    "picky": {"patterns": ("a/m:v1", "b/*")},
    "closed": {},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """(server, registry): a server whose mirrors are there before it starts, some of each kind."""
    data = tmp_path_factory.mktemp("mirror") / "data"
    data.mkdir()
    url = url_of(data)
    upgrade(url)
    with faulty_registry() as registry, faulty_registry() as mortal:
        database = Database(url)
        for kind, options in _KINDS.items():
            for number in range(20):
                mirror = parse_mirror(f"{kind}{number}", f"{registry.url}/up", **options)
                Mirrors(database).add(mirror, is_public=kind != "closed")
        Mirrors(database).add(parse_mirror("mortal", f"{mortal.url}/up", ttl_s=0), is_public=True)
        database.close()
        with running_server(data, {"TONNAGE_WORKERS": "2"}) as server:
            yield server, registry, mortal


@pytest.fixture
def mirror_of(hub):
    """A function from a kind to a mirror that knows nothing yet, of a registry that nobody has asked."""
    server, registry, _ = hub

    def find(kind: str = "plain") -> World:
        registry.requests.clear()
        registry.faults.clear()
        registry.sent_bytes = registry.sum_bytes = 0
        return World(server, registry, f"{kind}{next(_UNUSED[kind])}")

    return find


_UNUSED = {kind: itertools.count() for kind in _KINDS}


def test_a_cold_model_is_fetched_when_it_is_asked_for_and_then_it_is_here(mirror_of):
    world = mirror_of()
    weights = random_bytes(3 * MIB, 1)
    digest, config = add_model(world.registry, "v1", weights)

    manifest = world.get("manifests/v1")

    assert manifest.body == world.registry.manifests["v1"][0]
    assert "Warning" not in manifest.headers
    assert world.get(f"blobs/{digest}").body == weights
    assert world.get(f"blobs/{config}").status == 200
    assert all(request.target.startswith("/v2/up/a/m/") for request in world.registry.requests)
    before = len(world.registry.requests)
    assert world.get("manifests/v1").status == 200
    assert world.get(f"blobs/{digest}").body == weights
    assert len(world.registry.requests) == before


def test_what_is_asked_for_by_digest_is_never_asked_for_again(mirror_of):
    world = mirror_of("eager")
    add_model(world.registry, "v1", b"by digest")
    digest = world.get("manifests/v1").headers["Docker-Content-Digest"]
    before = len(world.registry.requests)

    assert world.get(f"manifests/{digest}").status == 200

    assert len(world.registry.requests) == before


def test_a_tag_that_moved_upstream_moves_here(mirror_of):
    world = mirror_of("eager")
    add_model(world.registry, "v1", b"first")
    world.get("manifests/v1")
    add_model(world.registry, "v1", b"second")

    assert world.get("manifests/v1").body == world.registry.manifests["v1"][0]


def test_a_tag_is_believed_for_as_long_as_the_mirror_says(mirror_of):
    world = mirror_of()
    add_model(world.registry, "v1", b"first")
    first = world.get("manifests/v1").body
    add_model(world.registry, "v1", b"second")

    assert world.get("manifests/v1").body == first


@pytest.mark.parametrize(
    "fault",
    [Fault("GET", "/manifests/", times=9, status=500), Fault("GET", "/manifests/", times=9, status=404)],
    ids=["broken", "gone"],
)
def test_what_the_upstream_does_not_give_any_more_is_given_with_a_warning(mirror_of, fault):
    world = mirror_of("eager")
    weights = random_bytes(100_000, 2)
    digest, _ = add_model(world.registry, "v1", weights)
    first = world.get("manifests/v1")
    world.get(f"blobs/{digest}")
    world.registry.faults.append(replace(fault))

    again = world.get("manifests/v1")

    assert (again.status, again.body) == (200, first.body)
    assert again.headers["Warning"][:3] in {"110", "111", "199"}
    assert world.get(f"blobs/{digest}").body == weights


def test_a_model_outlives_its_upstream(hub):
    server, _, mortal = hub
    world = World(server, mortal, "mortal")
    digest, _ = add_model(mortal, "v1", b"mortal")
    assert world.get("manifests/v1").status == 200
    assert world.get(f"blobs/{digest}").status == 200
    mortal.stop()

    answers = [world.get("manifests/v1") for _ in range(4)]

    assert [answer.status for answer in answers] == [200] * 4
    assert all("does not answer" in answer.headers["Warning"] for answer in answers)
    assert world.get(f"blobs/{digest}").body == b"mortal"
    assert world.get("manifests/v2").status == 502


def test_bytes_are_served_while_the_rest_has_not_come_yet(mirror_of):
    world = mirror_of()
    weights = random_bytes(2 * MIB, 3)
    digest, _ = add_model(world.registry, "v1", weights)
    world.get("manifests/v1")
    world.registry.faults.append(Fault("GET", digest, stall_after=300_000))

    connection, response = world.client.open("GET", f"/v2/{world.prefix}/a/m/blobs/{digest}")
    try:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(weights))
        assert response.read(250_000) == weights[:250_000]
        within = world.get(f"blobs/{digest}", {"Range": "bytes=1000-1999"})
        assert (within.status, within.body) == (206, weights[1000:2000])
        world.registry.silence.set()  # the stalled answer is cut; the rest comes with the next
        assert response.read() == weights[250_000:]
    finally:
        connection.close()
        world.registry.silence.clear()


def test_many_clients_cost_one_transfer(mirror_of):
    world = mirror_of()
    weights = random_bytes(16 * MIB, 4)
    digest, _ = add_model(world.registry, "v1", weights)
    want = hashlib.sha256(weights).digest()

    def pull(_: int) -> bool:
        world.get("manifests/v1")
        return hashlib.sha256(world.get(f"blobs/{digest}").body).digest() == want

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(pull, range(20)))

    assert world.registry.sent_bytes <= 1.01 * len(weights)


def test_wrong_bytes_are_never_complete_and_never_kept(mirror_of):
    world = mirror_of()
    weights = random_bytes(MIB, 5)
    digest, _ = add_model(world.registry, "v1", weights)
    world.registry.blobs[digest] = weights[:-1] + bytes([weights[-1] ^ 1])
    world.get("manifests/v1")

    assert not is_complete(world, digest, len(weights))

    world.registry.blobs[digest] = weights
    assert world.get(f"blobs/{digest}").body == weights


def test_a_reader_of_bytes_that_were_put_right_later_is_cut_off(mirror_of):
    world = mirror_of()
    weights = random_bytes(12 * MIB, 8)
    digest, _ = add_model(world.registry, "v1", weights)
    world.get("manifests/v1")
    world.registry.sum_bytes = MIB
    world.registry.faults.append(Fault("GET", digest, flip=1000))

    assert not is_complete(world, digest, len(weights))

    assert world.get(f"blobs/{digest}").body == weights


def is_complete(world: World, digest: str, size: int) -> bool:
    """Whether a client that looks at the length alone takes the answer for whole."""
    try:  # a reset may overtake what was sent before it, the status too
        connection, response = world.client.open("GET", f"/v2/{world.prefix}/a/m/blobs/{digest}")
        with closing(connection):
            return response.status == 200 and len(response.read()) == size
    except (OSError, HTTPException):
        return False


def test_what_is_not_there_is_asked_for_once_in_a_while(mirror_of):
    world = mirror_of()

    assert [world.get("manifests/none").status for _ in range(4)] == [404] * 4

    assert world.asked("GET", "manifests/none") <= 2  # once by each worker


def test_a_blob_that_no_manifest_lists_is_not_asked_for(mirror_of):
    world = mirror_of()
    digest = world.registry.add(b"not listed")
    add_model(world.registry, "v1", b"listed")
    world.get("manifests/v1")

    assert world.get(f"blobs/{digest}").status == 404

    assert world.asked("GET", digest) == 0


def test_head_tells_the_size_and_fetches_nothing(mirror_of):
    world = mirror_of()
    digest, _ = add_model(world.registry, "v1", b"how long?")
    world.get("manifests/v1")

    head = world.get(f"blobs/{digest}", method="HEAD")

    assert (head.status, head.headers["Content-Length"]) == (200, "9")
    assert world.asked("GET", "/blobs/") == 0


def test_what_the_upstream_does_not_have_is_not_here(mirror_of):
    world = mirror_of()

    assert world.get("manifests/nothing").code == "NAME_UNKNOWN"


def test_only_what_the_patterns_admit_is_fetched(mirror_of):
    world = mirror_of("picky")
    add_model(world.registry, "v1", b"admitted")
    add_model(world.registry, "v2", b"not admitted")

    assert world.get("manifests/v1").status == 200
    assert world.get("manifests/v2").status == 404
    assert world.client.request("GET", f"/v2/{world.prefix}/c/m/manifests/v1").status == 404
    assert world.asked("GET", "manifests/v2") == 0


def test_nothing_can_be_pushed_to_a_mirror(mirror_of, tmp_path):
    world = mirror_of()
    admin = Client(world.server.host, world.server.admin_token)
    add_model(world.registry, "v1", b"not to be replaced")
    manifest = world.get("manifests/v1").body
    (tmp_path / "weights").write_bytes(os.urandom(1000))
    admin.push_model(f"p{world.prefix}/mine", "v1", tmp_path / "weights")

    for answer in (
        admin.put_manifest(f"{world.prefix}/a/m", "v1", manifest),
        admin.request("POST", f"/v2/{world.prefix}/a/m/blobs/uploads/", headers={"Content-Length": "0"}),
    ):
        assert (answer.status, answer.code) == (403, "DENIED")
    target = f"{world.prefix}/mine:v1"
    for path, body in (
        ("/api/copy", {"source": f"p{world.prefix}/mine:v1", "destination": target}),
        ("/api/create", {"model": target, "from": f"p{world.prefix}/mine:v1", "stream": False}),
    ):
        refused = admin.post_json(path, body)
        assert refused.status == 403, (path, refused.body)
        assert "mirrors" in refused.json["error"]


def test_a_private_mirror_is_for_those_who_may_pull(mirror_of):
    world = mirror_of("closed")
    add_model(world.registry, "v1", b"private")

    assert world.get("manifests/v1").status == 401

    assert not world.registry.requests
    admin = Client(world.server.host, world.server.admin_token)
    assert admin.request("GET", f"/v2/{world.prefix}/a/m/manifests/v1").status == 200


def test_a_fetch_goes_on_where_a_killed_server_left_it(tmp_path):
    weights = random_bytes(24 * MIB, 6)
    (tmp_path / "data").mkdir()
    upgrade(url := url_of(tmp_path / "data"))
    with faulty_registry() as registry:
        Mirrors(Database(url)).add(parse_mirror("plain", f"{registry.url}/up"), is_public=True)
        digest, _ = add_model(registry, "v1", weights)
        with running_server(tmp_path / "data", {"TONNAGE_WORKERS": "1"}) as server:
            world = World(server, registry, "plain")
            world.get("manifests/v1")
            registry.faults.append(Fault("GET", digest, stall_after=16 * MIB))
            connection, response = world.client.open("GET", f"/v2/plain/a/m/blobs/{digest}")
            assert response.read(8 * MIB) == weights[: 8 * MIB]
            wait_for(lambda: _saved(server) > 0, 20, "the row to tell of the bytes")
            saved = _saved(server)
            server.kill()
            connection.close()
        _lapse(tmp_path / "data")
        registry.silence.set()
        registry.sent_bytes = 0
        with running_server(tmp_path / "data", {"TONNAGE_WORKERS": "1"}) as server:
            whole = World(server, registry, "plain").get(f"blobs/{digest}")
        assert whole.body == weights
        assert registry.sent_bytes <= len(weights) - saved


def _saved(server: Server) -> int:
    """How many bytes of uploads the rows tell of."""
    database = Database(url_of(server.data))
    try:
        with database.connect() as connection:
            return int(connection.exec_driver_sql('SELECT coalesce(max("offset"), 0) FROM uploads').scalar_one())
    finally:
        database.close()


def _lapse(data: Path) -> None:
    """As if half a minute had passed since the writer died."""
    database = Database(url_of(data))
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE uploads SET writer_until = 0")
    database.close()


def pull(world: World, model: str) -> list[dict[str, object]]:
    return list(world.client.lines("/api/pull", {"model": f"{world.prefix}/{model}"}))


def test_a_pull_brings_all_of_a_mirrored_model(mirror_of):
    world = mirror_of()
    digests = add_model(world.registry, "v1", random_bytes(MIB, 7), b"template")

    lines = pull(world, "m:v1")

    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}
    before = len(world.registry.requests)
    for digest in digests:
        answer = world.client.request("GET", f"/v2/{world.prefix}/m/blobs/{digest}")
        assert answer.body == world.registry.blobs[digest]
    assert len(world.registry.requests) == before


def test_a_pull_asks_for_the_newest_however_long_a_tag_is_believed(mirror_of):
    world = mirror_of()
    add_model(world.registry, "v1", b"first")
    pull(world, "m:v1")
    add_model(world.registry, "v1", b"second")

    assert pull(world, "m:v1")[-1] == {"status": "success"}

    manifest = world.client.request("GET", f"/v2/{world.prefix}/m/manifests/v1")
    assert manifest.body == world.registry.manifests["v1"][0]


def test_a_pull_of_what_is_not_there_says_so(mirror_of):
    lines = pull(mirror_of(), "m:none")

    assert lines[-1] == {"error": "pull model manifest: file does not exist"}


def test_a_model_whose_blobs_have_not_come_yet_is_one_to_pull(mirror_of):
    world = mirror_of()
    add_model(world.registry, "v1", b"GGUF not here yet")
    world.client.request("GET", f"/v2/{world.prefix}/m/manifests/v1")

    answer = world.client.post_json("/api/generate", {"model": f"{world.prefix}/m:v1", "prompt": "?"})

    words = f'model "{world.prefix}/m:v1" not found, try pulling it first'  # clients pull
    assert (answer.status, answer.json) == (404, {"error": words})


def test_commands_add_list_and_remove_mirrors(tmp_path, monkeypatch):
    monkeypatch.setattr("registry.cli.mirror.SETTLE_S", 0.0)
    where = ("--data", str(tmp_path / "data"), "--database-url", url_of(tmp_path / "data"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(group, ["mirror", *arguments, *where])

    added = run("add", "hf.example", "http://127.0.0.1:1", "--ttl", "1m", "--allow", "a/*", "--public")

    assert added.output == "hf.example mirrors http://127.0.0.1:1\n"
    assert "hf.example\thttp://127.0.0.1:1\tttl 60 s\ta/*" in run("list").output
    changed = run("add", "hf.example", "http://127.0.0.1:1", "--ttl", "2m")
    assert changed.output == "hf.example mirrors http://127.0.0.1:1: changed\n"
    assert "hf.example\thttp://127.0.0.1:1\tttl 120 s\tall" in run("list").output
    assert "mirrors http://127.0.0.1:1 already" in run("add", "hf.example", "hub.example").output
    assert run("remove", "hf.example").output == "removed hf.example\n"
    assert run("list").output == ""
    refused = run("add", "x", "ftp://somewhere")
    assert refused.exit_code == 1
    assert "ftp" in refused.output


@pytest.fixture
def database(tmp_path):
    upgrade(url := url_of(tmp_path))
    database = Database(url)
    yield database
    database.close()


TEAM = parse_mirror("team", "hub.example")


def push(database: Database, name: str = "team/pushed") -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    Repositories(database).put_manifest(RepositoryName(name), Tag("v1"), index)


def test_where_somebody_has_pushed_is_no_room_for_a_mirror(database):
    push(database)

    with pytest.raises(NameTaken, match="team/pushed was pushed here"):
        Mirrors(database).add(TEAM)


def test_a_mirror_that_was_removed_takes_back_what_is_said_to_be_its_own(database):
    mirrors = Mirrors(database)
    mirrors.add(TEAM)
    push(database, "team/fetched")
    mirrors.remove(TEAM.prefix)
    with pytest.raises(NameTaken, match="--adopt"):
        mirrors.add(TEAM)

    assert mirrors.add(TEAM, adopts=True)

    assert mirrors.list() == [TEAM]


def test_a_mirror_is_changed_and_keeps_its_schedule(database, tmp_path):
    mirrors = Mirrors(database)
    mirrors.add(replace(TEAM, sync_every_s=60.0, sync_at=1.0))
    push(database, "team/fetched")
    changed = replace(TEAM, ttl_s=1.0, patterns=("a/*",), token_path=tmp_path)

    assert not mirrors.add(changed)

    assert mirrors.list() == [replace(changed, sync_every_s=60.0, sync_at=1.0)]


@pytest.mark.parametrize("other", [parse_mirror("team", "hub.example/x"), parse_mirror("team", "http://hub.example")])
def test_a_mirror_does_not_become_one_of_another_upstream(database, other):
    Mirrors(database).add(TEAM)

    with pytest.raises(NameTaken, match=r"mirrors https://hub\.example/team already"):
        Mirrors(database).add(other)


@pytest.mark.parametrize("adopts", [False, True])
def test_who_pushes_while_a_mirror_is_being_added_is_first(database, monkeypatch, adopts):
    mirrors = Mirrors(database)

    with monkeypatch.context() as patch, pytest.raises(NameTaken, match="team/pushed"):
        patch.setattr("time.sleep", lambda _: push(database))
        mirrors.add(TEAM, adopts=adopts, settle_s=60.0)

    assert mirrors.list() == []


def test_a_mirror_fetches_nothing_before_pushes_have_settled_and_all_of_it_then(database, monkeypatch):
    mirrors, seen = Mirrors(database), []

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", lambda _: seen.append(mirrors.find(TEAM.prefix)))
        mirrors.add(TEAM, settle_s=60.0)

    assert seen == [TEAM]
    assert not seen[0].admits(TEAM.prefix)
    monkeypatch.setattr("time.time", lambda now=time.time(): now + 60.0)  # noqa: B008  # of now
    assert seen[0].admits(TEAM.prefix)


def test_a_token_opens_nothing_to_everybody_unless_that_is_said(database, tmp_path):
    Namespaces(database).create("team", is_private=False)
    with_token = replace(TEAM, token_path=tmp_path)
    with pytest.raises(WouldBePublic, match="--public"):
        Mirrors(database).add(with_token)
    Mirrors(database).add(TEAM)
    with pytest.raises(WouldBePublic):
        Mirrors(database).add(with_token)

    Mirrors(database).add(with_token, is_public=True)

    assert Mirrors(database).list() == [with_token]


@pytest.mark.parametrize(
    ("prefix", "upstream", "name", "remote"),
    [
        ("library", "registry.ollama.ai", "library/llama3", "library/llama3"),
        ("hf.co", "hf.co", "hf.co/org/model", "org/model"),
        ("docker.io/ai", "registry-1.docker.io", "docker.io/ai/smollm2", "ai/smollm2"),
        ("team", "https://hub.example:5000/other", "team/x/y", "other/x/y"),
        ("team/one", "hub.example/elsewhere/two", "team/one", "elsewhere/two"),
        ("hub.example__5000", "http://hub.example:5000", "hub.example__5000/a/b", "a/b"),
    ],
)
def test_names_here_and_there(prefix, upstream, name, remote):
    mirror = parse_mirror(prefix, upstream)

    assert str(mirror.remote_name(RepositoryName(name))) == remote
    assert str(mirror.local_name(RepositoryName(remote))) == name
    assert mirror.covers(RepositoryName(name))
    assert not mirror.covers(RepositoryName(f"{prefix}x/y"))
