"""HEAD and POST /api/blobs/<digest>: what is staged, for whom, and what is said of the rest."""

from __future__ import annotations

import time

import pytest

from storage.digest import Digest
from storage.reference import HoldingName
from tests.made_models import NETWORK, digest_of, names, upload
from tests.stored_models import push_layers

DATA = b"some bytes of a model" * 1000
DIGEST = digest_of(DATA)
HEX = DIGEST.removeprefix("sha256:")


def test_a_blob_is_absent_then_created_then_there(client):
    assert client.head(f"/api/blobs/{DIGEST}").status_code == 404

    answer = client.post(f"/api/blobs/{DIGEST}", data=DATA, content_type="application/json")

    assert (answer.status_code, answer.data) == (201, b"")
    assert client.head(f"/api/blobs/{DIGEST}").status_code == 200
    assert client.post(f"/api/blobs/{DIGEST}", data=DATA).status_code == 200


def test_an_empty_blob_is_one_too(client):
    empty = digest_of(b"")

    assert client.post(f"/api/blobs/{empty}", data=b"").status_code == 201
    assert client.head(f"/api/blobs/{empty}").status_code == 200


def test_trap_86_a_query_string_is_ignored(client):
    assert client.post(f"/api/blobs/{DIGEST}?ts=1700000000", data=DATA).status_code == 201


@pytest.mark.parametrize("method", ["HEAD", "POST"])
@pytest.mark.parametrize(
    "text", [HEX, f"md5:{HEX[:32]}", "sha256:", f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{'g' * 64}",
             f"sha512:{HEX}{HEX}", f"sha256_{HEX}", f"SHA256:{HEX}", f"sha256:{HEX}%0A"],
)  # fmt: skip
def test_trap_49_what_is_no_digest_is_refused(settled, method, text):
    answer = settled.open(f"/api/blobs/{text}", method=method, data=DATA if method == "POST" else None)

    assert answer.status_code == 400
    assert answer.data == (b'{"error":"invalid digest format"}' if method == "POST" else b"")


def test_other_bytes_are_refused_and_nothing_stays(client, store):
    other = digest_of(b"other")

    answer = client.post(f"/api/blobs/{other}", data=DATA)

    expected = f'digest mismatch, expected "{other}", got "{DIGEST}"'
    assert (answer.status_code, answer.json) == (400, {"error": expected})
    assert {client.head(f"/api/blobs/{each}").status_code for each in (other, DIGEST)} == {404}
    assert list(store.driver.keys("")) == []


@pytest.mark.parametrize("text", [f"sha256-{HEX}", f"sha256:{HEX.upper()}"])
def test_another_spelling_of_the_digest_never_matches(settled, text):
    answer = settled.post(f"/api/blobs/{text}", data=DATA)

    assert answer.status_code == 400
    assert answer.json == {"error": f'digest mismatch, expected "{text}", got "{DIGEST}"'}
    assert settled.head(f"/api/blobs/{DIGEST}").status_code == 404


def test_another_spelling_finds_what_is_there(client):
    upload(client, DATA)

    assert client.head(f"/api/blobs/sha256-{HEX}").status_code == 200
    assert client.post(f"/api/blobs/sha256-{HEX}", data=DATA).status_code == 200


def test_trap_81_a_staged_blob_outlives_every_sweep_of_its_first_hour(client, store, monkeypatch):
    upload(client, DATA)
    now = time.time()
    monkeypatch.setattr("storage.gc.time.time", lambda: now + 3700)

    store.collector.sweep()

    assert client.head(f"/api/blobs/{DIGEST}").status_code == 200


def test_a_staged_blob_goes_when_nobody_made_anything_of_it(client, store, monkeypatch):
    upload(client, DATA)
    now = time.time()
    monkeypatch.setattr("storage.gc.time.time", lambda: now + 25 * 3600)

    store.collector.sweep()

    assert list(store.driver.keys("")) == []


def test_a_holding_place_is_in_no_list_and_behind_no_path(client, store):
    upload(client, DATA)
    place = HoldingName.of("anonymous")

    assert store.blobs.stat(place, Digest.parse(DIGEST)).size == len(DATA)
    assert [each.name for each in store.namespaces.list()] == []
    assert store.repositories.catalog()[0] == []
    assert names(client) == []
    for path in (f"blobs/{DIGEST}", "tags/list", "manifests/latest"):
        assert client.get(f"/v2/{place}/{path}").status_code in (401, 404)
    mount = client.post(f"/v2/library/x/blobs/uploads/?mount={DIGEST}&from={place}")
    assert mount.status_code == 401


def test_a_holding_place_is_no_source_of_a_mount(client, store):
    upload(client, DATA)

    assert store.blobs.holders(Digest.parse(DIGEST)) == []


def test_nobody_is_told_of_what_another_has_staged(client, people):
    staged = client.post(f"/api/blobs/{DIGEST}", data=DATA, headers=people["mine"], environ_overrides=NETWORK)
    assert staged.status_code == 201

    seen = {
        who: client.head(f"/api/blobs/{DIGEST}", headers=headers, environ_overrides=NETWORK).status_code
        for who, headers in people.items()
    }

    assert seen == {"mine": 200, "theirs": 404}


def test_bytes_of_a_repository_count_for_those_who_may_read_it(client, people, store):
    push_layers(store, "mine/model", [("application/vnd.ollama.image.model", DATA)])

    seen = {
        who: client.post(f"/api/blobs/{DIGEST}", data=DATA, headers=headers, environ_overrides=NETWORK).status_code
        for who, headers in people.items()
    }

    assert seen == {"mine": 200, "theirs": 201}  # 201: as if nobody had them
    assert len([key for key in store.driver.keys("") if store.driver.stat(key) == len(DATA)]) == 1


def test_trap_35_a_stranger_is_refused_with_403(settled):
    answer = settled.post(f"/api/blobs/{DIGEST}", data=DATA, environ_overrides=NETWORK)

    assert answer.status_code == 403
    assert set(answer.json) == {"error"}
