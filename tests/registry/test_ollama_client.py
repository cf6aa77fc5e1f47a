"""The ollama client against a real server: its own requests, an enrolled key, nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from storage.digest import Digest
from tests.client import Client
from tests.ollama_client import AGENT, MASKED, NOT_FOUND, PART_AGENT, Canceled, ClientError, LocalStore, Part
from tests.ollama_flows import Pull, Push
from tests.registry.ollama_world import LAYERS, World, ollama_world, without_newline

WEIGHTS = LAYERS[0][1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ollama_world(tmp_path_factory.mktemp("ollama")) as running:
        yield running


def test_a_model_is_pushed_and_pulled_with_nothing_but_a_key(world: World, tmp_path: Path) -> None:
    pushed = world.push("acme/model:v1", tmp_path / "from")

    store = world.pull("acme/model:v1", tmp_path / "to")

    assert store.manifest("acme/model:v1").read_bytes() == without_newline(pushed)
    for media_type, data in LAYERS:
        assert store.blob(LocalStore(tmp_path / "any").add(data)).read_bytes() == data, media_type


def test_a_push_is_told_all_rights_it_needs_in_its_first_challenge(world: World, tmp_path: Path) -> None:
    registry = world.registry(world.owner)

    world.push("acme/one-token:v1", tmp_path, registry)

    refused = [each for each in registry.sent if each.status == 401]
    assert [each.method for each in refused] == ["HEAD"]
    assert all(each.header["User-Agent"] == AGENT for each in registry.sent)
    assert {each.status for each in registry.sent if each.method == "POST"} == {202}


def test_a_pull_asks_for_parts_as_nobody(world: World, tmp_path: Path) -> None:
    world.push("acme/parts:v1", tmp_path / "from")
    registry = world.registry(world.reader)

    world.pull("acme/parts:v1", tmp_path / "to", registry)

    parts = [each for each in registry.sent if each.header["User-Agent"] == PART_AGENT]
    assert parts
    assert {each.status for each in parts} == {206}
    assert {name for each in parts for name, _ in each.headers} == {"Host", "User-Agent", "Range"}
    assert len([each for each in registry.sent if each.status == 401]) == 1


def test_sixteen_parts_are_served_at_once(world: World, tmp_path: Path) -> None:
    world.push("acme/parallel:v1", tmp_path / "from", smallest_part=100_000)
    together = threading.Barrier(16)

    def wait_for_the_others(part: Part) -> None:
        if part.number < 16 and part.completed <= 32 * 2**10 < part.size:
            together.wait(30)

    store = world.pull("acme/parallel:v1", tmp_path / "to", smallest_part=1, progress=wait_for_the_others)

    assert store.blob(LocalStore(tmp_path / "any").add(WEIGHTS)).read_bytes() == WEIGHTS


def test_an_interrupted_pull_goes_on_in_mid_part(world: World, tmp_path: Path) -> None:
    world.push("acme/resumed:v1", tmp_path / "from")

    def interrupt(part: Part) -> None:
        if part.completed >= 64 * 2**10:
            raise Canceled

    with pytest.raises(Canceled):
        world.pull("acme/resumed:v1", tmp_path / "to", smallest_part=300_000, progress=interrupt)
    registry = world.registry(world.reader)
    store = world.pull("acme/resumed:v1", tmp_path / "to", registry, smallest_part=300_000)

    digest = LocalStore(tmp_path / "any").add(WEIGHTS)
    asked = [each for each in registry.sent if each.url.partition("?")[0].endswith(digest)]
    ranges = sorted(int(each.header["Range"][6:].partition("-")[0]) for each in asked if "Range" in each.header)
    assert store.blob(digest).read_bytes() == WEIGHTS
    assert ranges == [at + 64 * 2**10 for at in range(0, len(WEIGHTS), 300_000)]
    assert "HEAD" not in {each.method for each in asked}


def test_a_part_whose_token_went_bad_is_sent_again(world: World, tmp_path: Path) -> None:
    registry = world.registry(world.owner)

    def lose_the_token(number: int) -> None:
        if number == 1 and not any(each.method == "PATCH" and each.status == 401 for each in registry.sent):
            registry.token = registry.token[:-8] + "AAAAAAAA"

    world.push("acme/lost-token:v1", tmp_path / "from", registry, before_part=lose_the_token)

    assert [each.status for each in registry.sent if each.method == "PATCH"][:3] == [202, 401, 202]
    assert world.pull("acme/lost-token:v1", tmp_path / "to")


def test_pushing_the_same_model_again_sends_no_blob(world: World, tmp_path: Path) -> None:
    world.push("acme/twice:v1", tmp_path)
    registry = world.registry(world.owner)

    Push(registry, LocalStore(tmp_path)).run("acme/twice:v1")

    assert {each.method for each in registry.sent} == {"HEAD", "GET", "PUT"}
    assert [each.method for each in registry.sent].count("PUT") == 1


def test_layers_of_the_model_it_was_made_from_are_mounted(world: World, tmp_path: Path) -> None:
    world.push("acme/base:v1", tmp_path)
    registry = world.registry(world.owner)
    LocalStore(tmp_path).add_model("acme/derived:v1", LAYERS, b'{"model_format":"gguf","n":1}', source="acme/base:v1")

    Push(registry, LocalStore(tmp_path)).run("acme/derived:v1")

    mounts = [each for each in registry.sent if "mount=" in each.url]
    assert {each.status for each in mounts} <= {201, 401}
    assert [each.status for each in mounts].count(201) == len(LAYERS)
    assert {each.url.rpartition("/")[2] for each in registry.sent if each.method == "POST"} > {""}  # the config's
    world.pull("acme/derived:v1", tmp_path / "to")


@pytest.mark.parametrize(
    "source", ["model.gguf", "/models/some dir/model.gguf", "elsewhere.example/a/b:c", "foreign/x:v1"]
)
def test_a_source_that_is_none_or_not_ours_to_read_only_means_an_upload(
    world: World, tmp_path: Path, source: str
) -> None:
    world.admin().push_blob("foreign/x", WEIGHTS)
    registry = world.registry(world.owner)
    name = f"acme/from-{Digest.of(source.encode()).encoded[:8]}:v1"
    LocalStore(tmp_path).add_model(name, LAYERS, b"{}", source=source)

    Push(registry, LocalStore(tmp_path)).run(name)

    assert 201 not in {each.status for each in registry.sent if "mount=" in each.url}
    assert world.pull(name, tmp_path / "to")


def test_a_reader_is_told_why_it_may_not_push(world: World, tmp_path: Path) -> None:
    registry = world.registry(world.reader)

    with pytest.raises(ClientError) as refused:
        world.push("acme/refused:v1", tmp_path, registry)

    assert f"key {world.reader.public.fingerprint} may not push in acme" in str(refused.value), refused.value.cause
    assert len(registry.sent) < 12


def test_a_stranger_is_told_the_fingerprint_to_enrol_on_pull(world: World, tmp_path: Path) -> None:
    world.push("acme/for-friends:v1", tmp_path / "from")
    stranger = PrivateKey.generate()

    with pytest.raises(ClientError, match="pull model manifest: 4") as refused:
        world.pull("acme/for-friends:v1", tmp_path / "to", world.registry(stranger))

    assert stranger.public.fingerprint in str(refused.value)
    assert "--role pull" in str(refused.value)


def test_a_stranger_is_told_the_fingerprint_to_enrol_on_push(world: World, tmp_path: Path) -> None:
    stranger = PrivateKey.generate()

    with pytest.raises(ClientError) as refused:
        world.push("acme/strange:v1", tmp_path, world.registry(stranger))

    assert str(refused.value) != MASKED, refused.value.cause
    assert stranger.public.fingerprint in str(refused.value)


def test_an_enrolled_key_is_let_in_at_once_and_a_removed_one_is_out_at_once(world: World, tmp_path: Path) -> None:
    world.push("acme/at-once:v1", tmp_path / "from")
    key = PrivateKey.generate()
    with pytest.raises(ClientError):
        world.pull("acme/at-once:v1", tmp_path / "before", world.registry(key))

    world.enrol(key, "acme", "pull")
    world.pull("acme/at-once:v1", tmp_path / "during", world.registry(key))

    world.server.run("key", "remove", key.public.fingerprint)
    with pytest.raises(ClientError, match=r"is not known here"):
        world.pull("acme/at-once:v1", tmp_path / "after", world.registry(key))


def test_a_key_removed_in_mid_pull_gets_no_further_part(world: World, tmp_path: Path) -> None:
    world.push("acme/revoked:v1", tmp_path / "from")
    key, lock, waiting = PrivateKey.generate(), threading.Lock(), ["key", "remove"]
    world.enrol(key, "acme", "pull")

    def revoke(part: Part) -> None:
        with lock:
            if waiting:
                world.server.run(*waiting, key.public.fingerprint)
                waiting.clear()

    registry = world.registry(key, retry_unit_s=0.002)
    with pytest.raises(ClientError, match="max retries exceeded: EOF"):
        world.pull("acme/revoked:v1", tmp_path / "to", registry, smallest_part=1, largest_part=40_000, progress=revoke)

    statuses = [each.status for each in registry.sent if "Range" in each.header]
    assert 206 in statuses
    assert statuses[-1] == 401


def test_a_public_model_is_pulled_without_being_asked_who(world: World, tmp_path: Path) -> None:
    world.push("open/model:v1", tmp_path / "from")
    registry = world.registry(PrivateKey.generate())

    world.pull("open/model:v1", tmp_path / "to", registry)

    assert not [each for each in registry.sent if "Authorization" in each.header]
    assert {each.status for each in registry.sent} == {200, 206}


def test_the_address_of_a_blob_opens_nothing_else(world: World, tmp_path: Path) -> None:
    pushed = json.loads(world.push("acme/addresses:v1", tmp_path))
    registry, nobody = world.registry(world.reader), Client(world.server.host)
    pull = Pull(registry, LocalStore(tmp_path))
    digests = [layer["digest"] for layer in pushed["layers"][:2]]
    first, second = (pull.address(registry.path("acme/addresses", "blobs", digest)) for digest in digests)
    assert nobody.request("GET", first).body == WEIGHTS

    swapped = f"{second.partition('?')[0]}?{first.partition('?')[2]}"

    for url in (swapped, first.replace("acme/addresses", "acme/model"), first[:-1], first.partition("?")[0]):
        assert nobody.request("GET", url).status == 401, url
        assert nobody.request("GET", url, headers={"Range": "bytes=0-9"}).status == 401, url


def test_a_model_that_is_not_there_is_named_in_the_clients_words(world: World, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=f"^pull model manifest: {NOT_FOUND}$"):
        world.pull("acme/nowhere:v1", tmp_path)
