"""POST /v1/embeddings. Source: the Ollama API, "POST /v1/embeddings"."""

from __future__ import annotations

import base64
import math
import struct

import pytest
from flask.testing import FlaskClient

from runtime.errors import InputInvalid
from runtime.supervisor.lease import Lease
from tests.openai_app import JSON, error, post, whole

PATH = "/v1/embeddings"
ENCODING = "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64']."


def test_vectors_come_in_the_order_of_their_inputs(ollama: FlaskClient) -> None:
    answer = whole(ollama, PATH, model="bert", input=["hello", "world", "hello"])

    assert list(answer) == ["object", "data", "model", "usage"]
    assert (answer["object"], answer["model"]) == ("list", "bert")
    assert [each["index"] for each in answer["data"]] == [0, 1, 2]
    assert {each["object"] for each in answer["data"]} == {"embedding"}
    first, second, third = (each["embedding"] for each in answer["data"])
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-2)
    assert math.hypot(*first) == pytest.approx(1)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 2


@pytest.mark.parametrize("encoding", ["base64", "BASE64"])
def test_trap_44_base64_is_little_endian_float32(ollama: FlaskClient, encoding: str) -> None:
    asked = {"model": "bert", "input": "hello", "dimensions": 7}
    numbers = whole(ollama, PATH, **asked, encoding_format="float")["data"][0]["embedding"]
    packed = whole(ollama, PATH, **asked, encoding_format=encoding)["data"][0]["embedding"]

    assert list(struct.unpack("<7f", base64.b64decode(packed))) == pytest.approx(numbers, rel=1e-6)


def test_trap_45_a_cut_vector_has_unit_length_again(ollama: FlaskClient) -> None:
    (each,) = whole(ollama, PATH, model="bert", input="hello", dimensions=7)["data"]

    assert len(each["embedding"]) == 7
    assert math.hypot(*each["embedding"]) == pytest.approx(1)


def test_trap_46_what_is_no_number_is_an_error(ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputInvalid("embedding contains NaN or Inf values")

    monkeypatch.setattr(Lease, "embed", fail)
    refused = post(ollama, PATH, model="bert", input="x")

    assert (refused.status_code, refused.json) == error(400, "embedding contains NaN or Inf values")


@pytest.mark.parametrize("given", ["", [""]])
def test_trap_47_an_empty_text_is_one_input(ollama: FlaskClient, given: object) -> None:
    assert [len(each["embedding"]) for each in whole(ollama, PATH, model="bert", input=given)["data"]] == [64]


def test_a_large_answer_comes_bit_by_bit_and_is_the_same(ollama: FlaskClient) -> None:
    inputs = [f"text number {number}" for number in range(200)]

    answer = post(ollama, PATH, model="bert", input=inputs)

    assert answer.content_length is None
    (last,) = whole(ollama, PATH, model="bert", input=inputs[-1:])["data"]
    assert len(answer.json["data"]) == 200
    assert answer.json["data"][-1]["embedding"] == pytest.approx(last["embedding"], abs=5e-3)


REFUSALS: list[tuple[JSON, int, str]] = [
    ({"model": ""}, 404, "model '' not found"),
    ({"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
    ({"input": None}, 400, "invalid input"),
    ({"input": []}, 400, "invalid input"),
    ({"input": [1, 2]}, 400, "invalid input type"),
    ({"input": [[1, 2]]}, 400, "invalid input type"),
    ({"input": ["x", 1]}, 400, "invalid input type"),
    ({"input": {"text": "x"}}, 400, "invalid input type"),
    ({"input": ["x"] * 50_001}, 400, "too many inputs: 50001, and 50000 are the most of one call"),
    ({"encoding_format": "int8"}, 400, ENCODING),
    ({"encoding_format": 1}, 400, 'field "encoding_format" must be of type string'),
    ({"dimensions": "7"}, 400, 'field "dimensions" must be of type integer'),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS, ids=[message for _, _, message in REFUSALS])
def test_what_cannot_be_embedded_is_refused(ollama: FlaskClient, body: JSON, status: int, message: str) -> None:
    refused = post(ollama, PATH, **{"model": "bert", "input": "x"} | body)

    assert (refused.status_code, refused.json) == error(status, message)
