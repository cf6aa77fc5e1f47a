"""What looks after the stored bytes beside a server: the janitor, and the commands for an operator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import update

from auth.key_set import KeySet, key_id, rotate
from auth.published_keys import PublishedKeys
from migrations.run import upgrade
from registry.config import Config
from registry.janitor import say_keys, tidy, tidy_copies
from storage.db import Database
from storage.digest import Digest
from storage.errors import StorageUnavailable
from storage.layout import BLOBS, uploads_folder
from storage.local_copies.folder import CopyFolder
from storage.models import Upload
from storage.reference import RepositoryName
from storage.store import Store
from tests.backends import OF_FILES, driver_of
from tests.client import Client
from tests.databases import url_of
from tests.server import ROOT, Server, is_alive, running_server, wait_for

NAME = RepositoryName("team/model")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(data=str(tmp_path), database_url=url_of(tmp_path))
    upgrade(config.database_url)
    return config


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    store = Store(Database(config.database_url), driver_of(config.data_path))
    yield store
    store.database.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "data") as server:
        yield server


def keys(store: Store) -> list[str]:
    return list(store.driver.keys(BLOBS))


def leave_garbage(store: Store) -> None:
    store.blobs.unlink(NAME, store.blobs.put(NAME, b"unwanted").digest)


@OF_FILES
def test_one_turn_ends_old_sessions_and_sweeps(config, store):
    leave_garbage(store)
    old, young = store.uploads.start(NAME), store.uploads.start(NAME)
    for upload in (old, young):
        upload.append(BytesIO(b"xyz"))
    with store.database.write() as session:
        session.execute(update(Upload).where(Upload.id == old.id).values(touched_at=time.time() - 90_000))

    tidy(store)

    assert keys(store) == []
    assert len(list(uploads_folder(config.data_path).iterdir())) == 1
    assert store.uploads.resume(NAME, young.id).offset == 3


def test_copies_of_blobs_that_are_no_more_go(store, tmp_path):
    folder, gone = CopyFolder(tmp_path / "cache"), Digest.of(b"gone")
    blob = store.blobs.put(NAME, b"kept")
    folder.make()
    for digest in (blob.digest, gone):
        folder.copy_of(digest).write_bytes(b"copy")

    tidy_copies(store, folder)

    assert [entry.name for entry in folder.entries()] == [folder.copy_of(blob.digest).name]


def test_a_store_that_refuses_is_tidied_the_next_time(store, monkeypatch):
    leave_garbage(store)

    def refuse(key: str) -> None:
        raise StorageUnavailable("the filesystem refuses")

    monkeypatch.setattr(store.driver, "delete", refuse)
    tidy(store)
    monkeypatch.undo()
    assert len(keys(store)) == 1

    tidy(store)

    assert keys(store) == []


@OF_FILES
def test_the_process_sweeps_and_ends_when_told(config, store):
    leave_garbage(store)

    process = start_janitor(config)
    try:
        wait_for(lambda: keys(store) == [], 30, "a sweep")
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def start_janitor(config: Config) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "registry.janitor"], stdin=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    told = {"parent": os.getpid(), "config": config.to_json(), "every_s": 0.05}
    with process.stdin as stdin:
        stdin.write(json.dumps(told).encode() + b"\n")
    return process


def test_the_server_starts_a_janitor_again_and_leaves_none_behind(server):
    (janitor,) = server.processes("registry.janitor")
    os.kill(janitor, signal.SIGKILL)
    wait_for(lambda: server.processes("registry.janitor") not in ([], [janitor]), 30, "another janitor")
    (again,) = server.processes("registry.janitor")

    server.kill()

    wait_for(lambda: not is_alive(again), 10, "the janitor to end")


def test_gc_beside_a_server_frees_a_deleted_model_at_once(server, tmp_path):
    client = Client(server.host, server.admin_token)
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights " * 2**17)
    digest = client.push_model("acme/model", "v1", weights).headers["Docker-Content-Digest"]
    files = server.data / "objects"
    assert server.run("gc").stdout.startswith("removed 0 objects")

    assert client.request("DELETE", f"/v2/acme/model/manifests/{digest}").status == 202
    assert "would remove 2 objects, 1.0 MiB" in server.run("gc", "--dry-run").stdout
    assert "removed 2 objects, 1.0 MiB" in server.run("gc").stdout

    assert [path for path in files.rglob("*") if path.is_file()] == []


def test_a_repeated_put_does_not_answer_for_a_blob_that_was_swept(server):
    client = Client(server.host, server.admin_token)
    upload = client.request("POST", "/v2/acme/model/blobs/uploads/", headers={"Content-Length": "0"})
    digest = Digest.of(b"weights")
    close = f"{upload.headers['Location']}?digest={digest}"
    assert client.request("PUT", close, b"weights").status == 201
    assert client.request("PUT", close, b"weights").status == 201

    client.request("DELETE", f"/v2/acme/model/blobs/{digest}")
    server.run("gc")

    assert client.request("PUT", close, b"weights").status == 404


def test_head_by_who_may_only_read_keeps_nothing(server, tmp_path):
    admin = Client(server.host, server.admin_token)
    server.run("namespace", "create", "acme", "--public")
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    digest = admin.push_model("acme/model", "v1", weights).headers["Docker-Content-Digest"]
    blob = json.loads(admin.request("GET", "/v2/acme/model/manifests/v1").body)["layers"][0]["digest"]
    assert Client(server.host).request("HEAD", f"/v2/acme/model/blobs/{blob}").status == 200

    admin.request("DELETE", f"/v2/acme/model/manifests/{digest}")

    assert "removed 2 objects" in server.run("gc").stdout


def test_head_by_who_may_push_keeps_the_blob(server, tmp_path):
    admin = Client(server.host, server.admin_token)
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    digest = admin.push_model("acme/model", "v1", weights).headers["Docker-Content-Digest"]
    blob = json.loads(admin.request("GET", "/v2/acme/model/manifests/v1").body)["layers"][0]["digest"]
    assert admin.request("HEAD", f"/v2/acme/model/blobs/{blob}").status == 200

    admin.request("DELETE", f"/v2/acme/model/manifests/{digest}")

    assert "removed 1 objects" in server.run("gc").stdout
    assert admin.request("HEAD", f"/v2/acme/model/blobs/{blob}").status == 200


@OF_FILES
def test_scrub_reports_a_rotten_file_and_says_so_with_its_status(config, store):
    blob = store.blobs.put(NAME, b"weights")
    store.driver.local_path(blob.key).write_bytes(b"weighty")

    first, second = (run(config, "scrub", "--rate", "10M") for _ in range(2))

    assert (first.returncode, second.returncode) == (1, 0)
    assert first.stdout.startswith(f"damaged\t{blob.digest}\t{blob.key}\n")
    assert run(config, "scrub", "--rate", "fast").returncode == 2


def run(config: Config, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"TONNAGE_DATA": config.data, "TONNAGE_DATABASE_URL": config.database_url}
    command = [sys.executable, "-m", "registry", *arguments]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_that_was_removed_without_a_word_is_withdrawn(config, store):
    said = say_keys(config, store.database, before=())
    old = key_id(said[0])
    rotate(config.keys_path, keep=1)

    left = say_keys(config, store.database, before=said)

    published = PublishedKeys(store.database)
    assert published.find(old) is None
    assert [published.find(key_id(key)) for key in left] == list(KeySet(config.keys_path).own)


def test_keys_that_cannot_be_read_withdraw_nothing(config, store):
    said = say_keys(config, store.database, before=())
    (config.keys_path / "token-1.pem").chmod(0o640)

    assert say_keys(config, store.database, before=said) == said
    assert PublishedKeys(store.database).find(key_id(said[0])) == said[0]
