"""Models whose weights lie in a bucket: asked, made smaller, and asked again of a copy after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.full_gguf import write_full_gguf
from tests.s3_server import BUCKET, S3Server, s3_server
from tests.server import Server, is_alive, running_server, wait_for
from tests.tiny_gguf import write_tiny_gguf

GREEDY = {"temperature": 0, "num_predict": 6}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "data"


@pytest.fixture(scope="module")
def environ(s3: S3Server) -> dict[str, str]:
    told = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": s3.endpoint}
    return {**s3.environ, **told, "TONNAGE_ACCESS": "open", "TONNAGE_CACHE_BYTES": "64M"}


@pytest.fixture(scope="module")
def server(data: Path, environ: dict[str, str]) -> Iterator[Server]:
    with running_server(data, environ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Of a server with three models."""
    folder, client = tmp_path_factory.mktemp("models"), Client(server.host)
    client.push_model("library/tiny", "latest", write_tiny_gguf(folder / "tiny.gguf"))
    client.push_model("library/bert", "latest", write_tiny_gguf(folder / "bert.gguf", arch="bert", chat_template=None))
    client.push_model("library/full", "latest", write_full_gguf(folder / "full.gguf", "F16", width=256))
    return client


def asked(client: Client, route: str, **body: Any) -> Any:
    answer = client.post_json(f"/api/{route}", {"stream": False, **body}, timeout_s=120)
    assert answer.status == 200, answer.body
    return answer.json


def fetched(server: Server) -> int:
    """How many copies were fetched."""
    return server.log.count("tonnage.copies fetched digest=")


def test_an_answer_comes_from_a_copy_that_is_fetched_once(client, server, data):
    before = fetched(server)

    answers = {asked(client, "generate", model="tiny", prompt="hello", options=GREEDY)["response"] for _ in range(3)}

    assert len(answers) == 1 and answers != {""}
    assert fetched(server) - before == 1
    assert (data / "cache").stat().st_mode & 0o077 == 0


def test_texts_are_embedded_and_told_as_tokens(client):
    (vector,) = asked(client, "embed", model="bert", input=["a ship"])["embeddings"]
    tokens = asked(client, "tokenize", model="tiny", text="hello")["tokens"]

    assert len(vector) > 1
    assert asked(client, "detokenize", model="tiny", tokens=tokens)["text"] == "hello"


def test_to_tell_tokens_takes_no_more_of_the_weights_than_their_header(client, server, data, tmp_path):
    weights = write_tiny_gguf(tmp_path / "cold.gguf", seed=5)
    client.push_model("library/cold", "latest", weights)
    before = fetched(server)

    tokens = asked(client, "tokenize", model="cold", text="hello")["tokens"]

    assert tokens == asked(client, "tokenize", model="tiny", text="hello")["tokens"]
    assert fetched(server) == before
    (beginning,) = (data / "cache" / "beginnings").iterdir()
    assert beginning.stat().st_size == weights.stat().st_size
    asked(client, "generate", model="cold", prompt="hello", options=GREEDY)
    assert fetched(server) == before + 1


def test_weights_are_made_smaller_and_run(client, data):
    made = asked(client, "create", model="small", quantize="Q8_0", **{"from": "full"})

    assert made == {"status": "success"}
    assert asked(client, "show", model="small")["details"]["quantization_level"] == "Q8_0"
    assert asked(client, "generate", model="small", prompt="hello", options=GREEDY)["done"]
    assert not list((data / "cache").glob("made-*"))


def test_weights_larger_than_the_cache_are_refused_with_figures(client, tmp_path):
    padded = write_tiny_gguf(tmp_path / "padded.gguf")
    with padded.open("ab") as file:
        file.truncate(65 * 2**20)
    client.push_model("library/padded", "latest", padded)

    refused = client.post_json("/api/generate", {"model": "padded", "prompt": "hello"})

    assert refused.status == 507
    assert refused.json["error"] == (
        "the model's files take 65.0 MiB, and local copies may take 64.0 MiB on this node: raise TONNAGE_CACHE_BYTES"
    )


def test_a_copy_is_used_again_after_a_kill(client, server, data, environ):
    asked_for = {"model": "tiny", "prompt": "hello", "options": GREEDY}
    before = asked(client, "generate", **asked_for)["response"]
    below = server.descendants()
    server.kill()
    wait_for(lambda: not any(map(is_alive, below)), 20, "the processes to end")

    with running_server(data, environ) as again:
        fetched_before = fetched(again)
        assert asked(Client(again.host), "generate", **asked_for)["response"] == before
        assert fetched(again) == fetched_before
