"""GET /v1/models and /v1/models/NAME. Source: the Ollama API, "GET /v1/models, GET /v1/models/:model"."""

from __future__ import annotations

import time

import pytest
from flask.testing import FlaskClient

from tests.openai_app import JSON, error


def models(client: FlaskClient) -> dict[str, JSON]:
    answer = client.get("/v1/models")
    assert answer.content_type == "application/json"
    assert answer.json["object"] == "list"
    return {model["id"]: model for model in answer.json["data"]}


def test_the_list_has_the_models_that_tags_have(ollama: FlaskClient) -> None:
    tags = [model["name"] for model in ollama.get("/api/tags").json["models"]]
    found = models(ollama)

    assert list(found) == tags
    assert "image:latest" not in found
    assert found["ns/alias:v1"]["owned_by"] == "ns"
    tiny = found["tiny:latest"]
    assert list(tiny) == ["id", "object", "created", "owned_by"]
    assert (tiny["object"], tiny["owned_by"]) == ("model", "library")
    assert time.time() - 3600 < tiny["created"] <= time.time()


@pytest.mark.parametrize(
    ("asked", "listed"),
    [("tiny", "tiny:latest"), ("TINY:latest", "tiny:latest"), ("ns/alias:v1", "ns/alias:v1"),
     ("ns%2Falias:v1", "ns/alias:v1"), ("registry.ollama.ai/ns/alias:v1", "ns/alias:v1")],
)  # fmt: skip
def test_one_model_bears_the_name_that_was_asked_for(ollama: FlaskClient, asked: str, listed: str) -> None:
    shown = ollama.get(f"/v1/models/{asked}").json

    assert shown == models(ollama)[listed] | {"id": asked.replace("%2F", "/")}


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ("nope", 404, "model 'nope:latest' not found"),
        ("tiny:v2", 404, "model 'tiny:v2' not found"),
        ("ns/nope:v1", 404, "model 'ns/nope:v1' not found"),
        ("image", 404, "model 'image:latest' not found"),
        ("a/b/c/d", 400, "invalid model name"),
        ("tiny:cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
def test_what_is_no_model_is_refused(ollama: FlaskClient, asked: str, status: int, message: str) -> None:
    refused = ollama.get(f"/v1/models/{asked}")

    assert (refused.status_code, refused.json) == error(status, message)
