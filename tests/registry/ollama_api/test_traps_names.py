"""Compatibility traps of the Ollama API, by their numbers: models by their names, and what is told of them."""

from __future__ import annotations

import re

import pytest

from tests.registry.ollama_api.world import TOOL, Api, user


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/generate", "model 'x' not found"),
        ("/api/chat", "model 'x' not found"),
        ("/api/embed", 'model "x" not found, try pulling it first'),
        ("/api/embeddings", 'model "x" not found, try pulling it first'),
        ("/api/show", "model 'x:latest' not found"),
    ],
)
def test_trap_16_each_route_has_its_words_for_a_missing_model(api: Api, path: str, message: str) -> None:
    answer = api.post(path, model="x", prompt="x", input="x", messages=user())

    assert (answer.status, answer.json) == (404, {"error": message})


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/chat", 400, "model is required"),
        ("/api/embeddings", 400, "model is required"),
        ("/api/generate", 404, "model '' not found"),
        ("/api/embed", 404, "model '' not found"),
    ],
)
@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}])
def test_trap_17_each_route_has_its_words_for_no_model(
    api: Api, path: str, status: int, message: str, body: dict[str, object]
) -> None:
    answer = api.post(path, **body)

    assert (answer.status, answer.json) == (status, {"error": message})


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("/api/chat", {"tools": [TOOL]}, "registry.ollama.ai/library/tiny:latest does not support tools"),
        ("/api/generate", {"suffix": "s"}, "registry.ollama.ai/library/tiny:latest does not support insert"),
        ("/api/chat", {"model": "bert"}, '"bert" does not support chat'),
        ("/api/generate", {"model": "bert"}, '"bert" does not support generate'),
        ("/api/chat", {"think": True}, '"tiny" does not support thinking'),
        ("/api/generate", {"think": "high", "model": "Tiny:latest"}, '"Tiny:latest" does not support thinking'),
    ],
)
def test_trap_18_the_form_of_the_name_depends_on_the_capability(
    api: Api, path: str, asked: dict[str, object], message: str
) -> None:
    answer = api.post(path, **{"model": "tiny", "prompt": "x", "messages": user()} | asked)

    assert (answer.status, answer.json) == (400, {"error": message})


def test_trap_49_a_listed_digest_has_no_prefix_and_is_the_manifests(api: Api) -> None:
    api.whole("/api/generate", model="tiny")
    listed = {model["name"]: model["digest"] for model in api.client.request("GET", "/api/tags").json["models"]}
    manifest = api.admin.request("HEAD", "/v2/library/tiny/manifests/latest")

    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in listed.values())
    assert listed["tiny:latest"] == api.loaded()["tiny:latest"]["digest"]
    assert manifest.headers["Docker-Content-Digest"] == f"sha256:{listed['tiny:latest']}"


def test_trap_51_52_show_has_model_info_and_big_arrays_only_when_asked(api: Api) -> None:
    brief = api.post("/api/show", model="tiny").json
    verbose = api.post("/api/show", model="tiny", verbose=True).json

    assert brief["model_info"]["general.architecture"] == "llama"
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"):
        assert brief["model_info"][key] is None
        assert len(verbose["model_info"][key]) > 10
    assert "tokenizer.chat_template" not in brief["model_info"]


def test_trap_53_a_parent_is_a_model_that_is_here_or_nobody(api: Api) -> None:
    api.whole("/api/generate", model="tiny")
    listed = {model["name"]: model["details"] for model in api.client.request("GET", "/api/tags").json["models"]}
    shown = api.post("/api/show", model="tiny").json["details"]

    assert shown["parent_model"] == listed["tiny:latest"]["parent_model"] == ""
    assert api.loaded()["tiny:latest"]["details"]["parent_model"] == ""
    assert {details["parent_model"] for details in listed.values()} <= {"", *listed}


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "TINY", "library/tiny", "registry.ollama.ai/library/tiny"])
def test_trap_54_the_answer_repeats_the_name_as_it_was_asked(api: Api, name: str) -> None:
    assert api.whole("/api/generate", model=name, prompt="x")["model"] == name
    assert api.whole("/api/chat", model=name, messages=user())["model"] == name
    assert api.whole("/api/embed", model=name, input="x")["model"] == name
    assert "tiny:latest" in api.loaded()


@pytest.mark.parametrize("name", ["TINY", "Tiny:LATEST", "Library/Tiny", "NS/Alias:V1", "ns/ALIAS:v1"])
def test_trap_55_names_are_found_in_any_case(api: Api, name: str) -> None:
    assert api.post("/api/show", model=name).status == 200
    assert api.whole("/api/generate", model=name)["done_reason"] == "load"


def test_trap_56_a_source_suffix_picks_the_source(api: Api) -> None:
    assert api.whole("/api/generate", model="tiny:local")["done_reason"] == "load"
    assert api.post("/api/show", model="ns/alias:v1:local").status == 200
    for name in ("tiny:cloud", "tiny:Cloud", "tiny:latest-cloud", "tiny:latest:cloud"):
        answer = api.post("/api/chat", model=name, messages=user())
        assert (answer.status, answer.json["error"]) == (
            403,
            "ollama cloud is disabled: remote model is unavailable",
        )
        assert api.post("/api/show", model=name).status == 403
