"""Embedding and ranking over HTTP. Source: the Ollama API, "POST /api/embed"; rerank as Jina and Cohere have it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from flask.testing import FlaskClient

from runtime.errors import QueueFull
from runtime.supervisor import lease
from runtime.supervisor.client import Supervisor
from storage.store import Store
from tests import minilm
from tests.ollama_app import JSON, post
from tests.rank_gguf import rank_bert, write_rank_gguf
from tests.stored_models import push_model

DOCUMENTS = ["the ship sails", "a panda is a bear", "paris", "hello world"]
QUERY = "what is a panda"


@pytest.fixture(scope="module")
def client(ollama: FlaskClient, ollama_store: Store, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The app, with a model that ranks and one whose vectors make sense."""
    push_model(ollama_store, "ranker", write_rank_gguf(tmp_path_factory.mktemp("rank") / "rank.gguf"))
    push_model(ollama_store, "minilm", minilm.fetch())
    return ollama


@pytest.fixture(params=["/api/rerank", "/v1/rerank"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rerank(client: FlaskClient, path: str, **body: Any) -> JSON:
    answer = post(client, path, **{"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == ("application/json" if path == "/v1/rerank" else "application/json; charset=utf-8")
    found: JSON = answer.json
    return found


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_documents_come_in_the_order_of_their_scores(client: FlaskClient, path: str) -> None:
    answer = rerank(client, path)

    assert set(answer) == {"model", "results", "usage"}
    assert answer["model"] == "ranker"
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 4 * len(QUERY.split())
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(
        [rank_bert().score(QUERY, DOCUMENTS[result["index"]]) for result in answer["results"]], abs=5e-3
    )
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2, 3]


def test_as_many_as_are_wanted_with_their_texts(client: FlaskClient, path: str) -> None:
    every = rerank(client, path)["results"]

    best = rerank(client, path, documents=[{"text": text} for text in DOCUMENTS], top_n=2, return_documents=True)

    assert best["results"] == [result | {"document": {"text": DOCUMENTS[result["index"]]}} for result in every[:2]]
    assert len(rerank(client, path, top_n=9)["results"]) == 4


WRONG_DOCUMENTS = 'field "documents" must be a non-empty array of strings or of objects with a "text"'
REFUSALS: list[tuple[JSON, int, str]] = [
    ({"model": "bert"}, 400, '"bert" does not support rerank'),
    ({"model": "tiny"}, 400, '"tiny" does not support rerank'),
    ({"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
    ({"model": ""}, 404, "model '' not found"),
    ({"query": None}, 400, 'field "query" must be of type string'),
    ({"query": 1}, 400, 'field "query" must be of type string'),
    ({"documents": []}, 400, WRONG_DOCUMENTS),
    ({"documents": "x"}, 400, WRONG_DOCUMENTS),
    ({"documents": ["x", 1]}, 400, WRONG_DOCUMENTS),
    ({"documents": [{"image": "x"}]}, 400, WRONG_DOCUMENTS),
    ({"documents": ["x"] * 1001}, 400, "too many documents: 1001, and 1000 are the most of one call"),
    ({"top_n": 0}, 400, 'field "top_n" must be at least 1'),
    ({"documents": ["panda " * 300], "truncate": False}, 400, "the input length exceeds the context length"),
    ({"query": "panda " * 300}, 400, "the input length exceeds the context length"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_refusals_have_the_shape_of_their_face(
    client: FlaskClient, path: str, body: JSON, status: int, message: str
) -> None:
    refused = post(client, path, **{"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | body)

    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    v1 = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    assert (refused.status_code, refused.json) == (status, v1 if path == "/v1/rerank" else {"error": message})


def test_a_model_that_ranks_says_so(client: FlaskClient) -> None:
    assert post(client, "/api/show", model="ranker").json["capabilities"] == ["embedding", "rerank"]
    assert "rerank" not in post(client, "/api/show", model="bert").json["capabilities"]


def test_a_real_model_knows_what_is_alike(client: FlaskClient) -> None:
    answer = post(client, "/api/embed", model="minilm", input=["A cat sat.", "A kitten was sitting.", "SELECT 1;"])
    one, like, unlike = answer.json["embeddings"]

    assert set(answer.json) == {"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"}
    assert answer.content_type == "application/json; charset=utf-8"
    assert dot(one, like) > 0.5 > dot(one, unlike)
    assert len(one) == 384
    assert answer.json["prompt_eval_count"] == sum(
        len(minilm.original().tokens(text)) for text in ("A cat sat.", "A kitten was sitting.", "SELECT 1;")
    )


def test_the_limit_is_what_the_model_was_trained_with(client: FlaskClient) -> None:
    cut = post(client, "/api/embed", model="minilm", input="word " * 600, options={"num_ctx": 4096})
    refused = post(client, "/api/embed", model="minilm", input=["ok", "word " * 600], truncate=False)

    assert cut.json["prompt_eval_count"] == 512
    assert (refused.status_code, refused.json) == (400, {"error": "the input length exceeds the context length"})


@pytest.mark.parametrize(("asked", "length"), [(None, 384), (0, 384), (-1, 384), (100, 100), (384, 384), (999, 384)])
def test_dimensions_cut_a_vector_to_its_beginning(client: FlaskClient, asked: int | None, length: int) -> None:
    (whole,) = post(client, "/api/embed", model="minilm", input="hello").json["embeddings"]
    (cut,) = post(client, "/api/embed", model="minilm", input="hello", dimensions=asked).json["embeddings"]

    norm = math.hypot(*whole[:length])
    assert cut == pytest.approx([number / norm for number in whole[:length]], abs=1e-6)


def test_an_empty_text_in_a_list_has_a_vector(client: FlaskClient) -> None:
    assert [len(vector) for vector in post(client, "/api/embed", model="minilm", input=[""]).json["embeddings"]] == [
        384
    ]


def test_inputs_without_end_are_refused(client: FlaskClient) -> None:
    refused = post(client, "/api/embed", model="minilm", input=["a"] * 50_001)

    assert (refused.status_code, refused.json) == (
        400, {"error": "too many inputs: 50001, and 50000 are the most of one call"}
    )  # fmt: skip


def test_inputs_whose_vectors_are_too_large_together_are_refused(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_MOST_NUMBERS", 2 * 384)
    told = "too many inputs: 3 vectors of 384 numbers, and 2 are the most of one call with this model"

    fits = post(client, "/api/embed", model="minilm", input=["a", "b"])
    refused = post(client, "/api/embed", model="minilm", input=["a", "b", "c"])

    assert fits.status_code == 200
    assert (refused.status_code, refused.json) == (400, {"error": told})


@pytest.mark.parametrize("dimensions", [0, 7])
def test_a_large_answer_comes_bit_by_bit_and_is_the_same(client: FlaskClient, dimensions: int) -> None:
    inputs = [f"text number {number}" for number in range(70)]
    ones = [
        post(client, "/api/embed", model="minilm", input=inputs[at : at + 10], dimensions=dimensions).json["embeddings"]
        for at in range(0, 70, 10)
    ]

    answer = post(client, "/api/embed", model="minilm", input=inputs, dimensions=dimensions)

    assert answer.content_length is None
    assert set(answer.json) == {"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"}
    flat = [number for each in ones for vector in each for number in vector]
    assert [number for vector in answer.json["embeddings"] for number in vector] == pytest.approx(flat, abs=5e-3)


def test_who_is_refused_for_now_is_told_when_to_return(
    client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise QueueFull("server busy", retry_after_s=7)

    monkeypatch.setattr(Supervisor, "lease", refuse)
    refused = post(client, path, model="ranker", query=QUERY, documents=DOCUMENTS)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")


def test_the_old_route_gives_the_same_vector(client: FlaskClient) -> None:
    old = post(client, "/api/embeddings", model="minilm", prompt="hello").json

    assert set(old) == {"embedding"}
    assert old["embedding"] == pytest.approx(
        post(client, "/api/embed", model="minilm", input="hello").json["embeddings"][0], abs=1e-6
    )


def test_a_score_does_not_depend_on_the_other_documents(client: FlaskClient) -> None:
    few = rerank(client, "/api/rerank", documents=DOCUMENTS[:1])["results"]
    many = rerank(client, "/api/rerank", documents=DOCUMENTS * 50)["results"]

    score = next(result["relevance_score"] for result in many if result["index"] == 0)
    assert score == pytest.approx(few[0]["relevance_score"], abs=1e-3)
