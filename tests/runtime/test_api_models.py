"""Lists and descriptions of models, and what clients ask before anything else. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from registry.models.texts import parameters_text
from tests.ollama_app import whole


def test_tags_list_the_models_and_nothing_else(ollama: FlaskClient) -> None:
    models = {model["name"]: model for model in ollama.get("/api/tags").json["models"]}

    assert {"tiny:latest", "ns/alias:v1", "bert:latest"} <= set(models)
    assert "image:latest" not in models
    tiny = models["tiny:latest"]
    assert tiny["model"] == tiny["name"]
    assert len(tiny["digest"]) == 64
    assert tiny["details"]["quantization_level"] == "Q4_1"
    assert tiny["capabilities"] == ["completion"]
    assert models["bert:latest"]["capabilities"] == ["embedding"]


def test_show_tells_everything(ollama: FlaskClient) -> None:
    shown = whole(ollama, "/api/show", model="", name="tiny", options={"num_predict": 8}, system="S")

    assert shown["license"] == "MIT"
    assert shown["parameters"].splitlines() == [
        "mirostat                       1",
        "num_predict                    4",
        "temperature                    0",
    ]
    assert "<|im_start|>" in shown["template"]
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert shown["model_info"]["general.parameter_count"] > 0
    assert "tokenizer.chat_template" not in shown["model_info"]
    assert "context_length" not in shown["details"]
    assert shown["tensors"][0].keys() == {"name", "type", "shape"}
    assert "PARAMETER num_predict 8\n" in shown["modelfile"]
    assert "FROM tiny:latest\n" in shown["modelfile"]
    assert "SYSTEM S\n" in shown["modelfile"]
    verbose = whole(ollama, "/api/show", model="tiny", verbose=True)
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 256


def test_the_heartbeat_and_the_version(ollama: FlaskClient) -> None:
    assert ollama.get("/").text == "Ollama is running"
    assert ollama.head("/").status_code == 200
    assert ollama.get("/api/version").json == {"version": "0.33.0"}
    assert ollama.get("/api/status").json == {"cloud": {"disabled": True, "source": "env"}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7, "0.7"),
        (42, "42"),
        (0, "0"),
        (1e6, "1e+06"),
        (1234567, "1.234567e+06"),
        (131072, "131072"),
        (0.00001, "1e-05"),
        (-0.5, "-0.5"),
        (True, "true"),
        ("<|eot|>", '"<|eot|>"'),
        ('a"\n', '"a\\"\\n"'),
    ],
)
def test_parameters_are_written_as_go_writes_them(value: object, text: str) -> None:
    assert parameters_text({"stop": [value]}) == f"{'stop':<30} {text}"
