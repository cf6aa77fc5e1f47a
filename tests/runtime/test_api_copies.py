"""What clients see of models whose weights have to come from a bucket first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from runtime.api.ollama import bp
from runtime.model import load_model
from runtime.settings import RuntimeSettings
from runtime.supervisor.client import Supervisor
from storage.digest import Digest
from storage.drivers.objects.driver import ObjectDriver
from storage.errors import StorageUnavailable
from storage.local_copies import download
from storage.local_copies.copies import CopyLimits, LocalCopies
from storage.local_copies.folder import CopyFolder
from storage.reference import ModelName, RepositoryName
from storage.store import Store
from tests.gated_bucket import GatedBucket
from tests.runtime.conftest import open_gate
from tests.stored_models import open_store, push_model
from tests.tiny_gguf import write_tiny_gguf
from tests.waiting import wait_for

PIECE = 16 * 1024
ASKED = {"model": "far", "prompt": "hello", "stream": False, "options": {"num_predict": 2}}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> GatedBucket:
    monkeypatch.setattr(download, "PIECE_BYTES", PIECE)
    return GatedBucket()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "far.gguf")


@pytest.fixture
def room() -> float:
    """For how many copies there is."""
    return 1.5


@pytest.fixture
def folder(tmp_path: Path, weights: Path, room: float) -> CopyFolder:
    return CopyFolder(tmp_path / "cache", int(weights.stat().st_size * room))


@pytest.fixture
def store(tmp_path: Path, bucket: GatedBucket, folder: CopyFolder, weights: Path) -> Store:
    driver = ObjectDriver(bucket)
    store = Store(open_store(tmp_path).database, driver, LocalCopies(folder, driver, CopyLimits()))
    push_model(store, "far", weights)
    load_model(store, ModelName.parse("far"))  # its header is read where it is, and remembered
    return store


@pytest.fixture
def open_client(store: Store, ollama_run_dir: Path, tmp_path: Path) -> Iterator[Callable[[], FlaskClient]]:
    """Clients of a node that has the model loaded no more when the test ends."""
    app = Flask(__name__)
    app.register_blueprint(bp)
    app.extensions["tonnage.gate"] = open_gate(store, tmp_path / "keys")
    app.extensions["tonnage.store"] = store
    app.extensions["tonnage.supervisor"] = Supervisor(ollama_run_dir)
    app.extensions["tonnage.runtime"] = RuntimeSettings()
    yield app.test_client
    app.test_client().post("/api/generate", json={"model": "far", "keep_alive": 0})


def fetching(client: FlaskClient) -> list[dict[str, Any]]:
    shown = client.get("/api/ps").json
    assert shown is not None
    return shown.get("fetching", [])  # type: ignore[no-any-return]


def test_ps_shows_how_far_the_weights_are(open_client, bucket: GatedBucket, weights: Path):
    size = weights.stat().st_size
    client, digest = open_client(), str(Digest.of(weights.read_bytes()))
    bucket.shut(2 * PIECE)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: open_client().post("/api/generate", json=ASKED))
        here = {"repository": "library/far", "digest": digest, "total": size, "completed": 2 * PIECE}
        wait_for(lambda: fetching(client) == [here], 20, "two pieces of the weights")
        bucket.gate.set()
        assert answer.result(60).json["done"]

    assert "fetching" not in client.get("/api/ps").json


def test_a_fetch_is_shown_to_nobody_who_may_not_see_a_model_of_it(
    open_client, bucket: GatedBucket, monkeypatch: pytest.MonkeyPatch
):
    client = open_client()
    bucket.shut()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: open_client().post("/api/generate", json=ASKED))
        wait_for(lambda: fetching(client) != [], 20, "the fetch to begin")
        with monkeypatch.context() as patch:
            patch.setattr("auth.access.Gate.may_see", lambda gate, name: False)
            assert fetching(client) == []
        bucket.gate.set()
        answer.result(60)


def test_a_loaded_model_keeps_its_copy_from_making_room(open_client, store: Store, folder: CopyFolder, weights: Path):
    client, name = open_client(), RepositoryName("library/far")
    assert client.post("/api/generate", json=ASKED | {"keep_alive": -1}).status_code == 200
    other = store.blobs.put(name, b"other weights" * (weights.stat().st_size // 13)).digest

    with pytest.raises(StorageUnavailable, match="in use"), store.files.hold(name, [other]):
        pass

    client.post("/api/generate", json={"model": "far", "keep_alive": 0})
    with store.files.hold(name, [other]) as (path,):
        assert path.exists()
    assert [entry.name for entry in folder.entries()] == [path.name]


def test_a_model_that_nobody_asks_gives_its_place_to_the_next(
    open_client, store: Store, folder: CopyFolder, tmp_path: Path
):
    client = open_client()
    push_model(store, "other", write_tiny_gguf(tmp_path / "other.gguf", seed=2))
    assert client.post("/api/generate", json=ASKED | {"keep_alive": -1}).status_code == 200

    asked = client.post("/api/generate", json=ASKED | {"model": "other"})

    assert (asked.status_code, asked.json["done"]) == (200, True)
    assert [loaded["name"] for loaded in client.get("/api/ps").json["models"]] == ["other:latest"]
    assert len(folder.entries()) == 1
    client.post("/api/generate", json={"model": "other", "keep_alive": 0})


@pytest.mark.parametrize("room", [2.5])
def test_many_who_ask_for_one_model_end_no_more_than_one(open_client, store: Store, tmp_path: Path):
    for seed, name in enumerate(("second", "third"), 2):
        push_model(store, name, write_tiny_gguf(tmp_path / f"{name}.gguf", seed=seed))
    client = open_client()
    for name in ("far", "second"):
        assert client.post("/api/generate", json=ASKED | {"model": name, "keep_alive": -1}).status_code == 200

    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: open_client().post("/api/generate", json=ASKED | {"model": "third"}), range(6))
        )

    assert {answer.status_code for answer in answers} == {200}
    assert {loaded["name"] for loaded in client.get("/api/ps").json["models"]} == {"second:latest", "third:latest"}
    for name in ("second", "third"):
        client.post("/api/generate", json={"model": name, "keep_alive": 0})


def test_a_model_that_is_at_work_keeps_its_place(open_client, store: Store, tmp_path: Path):
    client = open_client()
    push_model(store, "other", write_tiny_gguf(tmp_path / "other.gguf", seed=2))
    streaming = {**ASKED, "stream": True, "options": {"num_predict": 100_000, "num_ctx": 256, "stop": []}}
    stream = client.post("/api/generate", json=streaming, buffered=False)
    lines = iter(stream.response)
    next(lines)

    refused = client.post("/api/generate", json=ASKED | {"model": "other"})
    stream.close()

    assert (refused.status_code, "in use" in refused.json["error"]) == (503, True)


def test_damaged_weights_are_shown_to_no_runner(open_client, bucket: GatedBucket, folder: CopyFolder, weights: Path):
    client, whole = open_client(), weights.read_bytes()
    (key,) = [key for key, data in bucket.objects.items() if data == whole]
    bucket.objects[key] = whole[:-1] + bytes([whole[-1] ^ 1])

    answer = client.post("/api/generate", json=ASKED)

    assert (answer.status_code, "have another digest" in answer.json["error"]) == (500, True)
    assert folder.entries() == []
