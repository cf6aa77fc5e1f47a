"""Compatibility traps of the Ollama API, by their numbers: embeddings."""

from __future__ import annotations

import math
from operator import mul

import pytest

from tests.registry.ollama_api.world import Api


def norm(vector: list[float]) -> float:
    return math.hypot(*vector)


@pytest.mark.parametrize(("dimensions", "length"), [(0, 64), (7, 7), (1, 1), (64, 64), (65, 64), (-1, 64)])
def test_trap_45_a_vector_is_of_unit_length_cut_or_not(api: Api, dimensions: int, length: int) -> None:
    (vector,) = api.whole("/api/embed", model="bert", input="hello", dimensions=dimensions)["embeddings"]

    assert len(vector) == length
    assert norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("path", "status"), [("/api/embed", 400), ("/api/embeddings", 500), ("/v1/embeddings", 400)])
def test_trap_46_what_is_no_number_is_an_error(api: Api, path: str, status: int) -> None:
    """The old route calls every failure of the runner a 500."""
    answer = api.post(path, model="nan", input="hello", prompt="hello")

    assert answer.status == status
    assert b"embedding contains NaN or Inf values" in answer.body
    told = answer.json["error"]
    assert (told["message"] if isinstance(told, dict) else told) == "embedding contains NaN or Inf values"


def test_trap_47_an_empty_text_is_no_input_but_one_in_a_list_is(api: Api) -> None:
    for nothing in ("", [], None):
        assert api.whole("/api/embed", model="bert", input=nothing) == {"model": "bert", "embeddings": []}
    assert len(api.whole("/api/embed", model="bert", input=[""])["embeddings"]) == 1


def test_trap_48_vectors_stand_in_the_order_of_their_inputs(api: Api) -> None:
    texts = [f"{'hello ' * (number * 7 % 20)}{number}" for number in range(24)]

    together = api.whole("/api/embed", model="bert", input=texts)["embeddings"]

    alone = [api.whole("/api/embed", model="bert", input=text)["embeddings"][0] for text in texts]
    for number, vector in enumerate(together):
        nearness = [sum(map(mul, vector, other)) for other in alone]
        assert nearness.index(max(nearness)) == number
