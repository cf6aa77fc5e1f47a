"""A model that is created has the bytes of one that is pushed. Source: the Ollama registry protocol, check values."""

from __future__ import annotations

import json

import pytest

from registry.models.create.go_json import go_json, in_order
from registry.remotes.package import build_package
from tests.made_models import create, digest_of, gguf_bytes, layers, manifest, upload


def test_the_config_of_the_check_values(client):
    create(client, model="x", files={"test.gguf": upload(client, gguf_bytes("test"))})

    digest = manifest(client, "library/x")["config"]["digest"]
    assert digest == "sha256:99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"


@pytest.mark.parametrize(
    ("parameters", "digest"),
    [
        ({"top_k": 10, "temperature": 1.0, "stop": ["USER:", "ASSISTANT:"]},
         "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37"),
        ({"stop": ["<|end|>", "<|user|>", "<|assistant|>"]}, None),
    ],
)  # fmt: skip
def test_the_parameters_of_the_check_values(client, tiny, parameters, digest):
    create(client, model="x", **{"from": "tiny"}, parameters=parameters)

    (found,) = layers(client, "library/x", "params")
    expected = digest or digest_of(
        b'{"stop":["\\u003c|end|\\u003e","\\u003c|user|\\u003e","\\u003c|assistant|\\u003e"]}\n'
    )
    assert found["digest"].removeprefix("sha256:") == expected.removeprefix("sha256:")


def test_what_a_client_pushes_and_what_is_created_here_is_one_model(client, weights, tmp_path):
    (tmp_path / "w.gguf").write_bytes(weights)
    (tmp_path / "template").write_text("<{{ .Prompt }}>")
    (tmp_path / "licence").write_text("MIT & more")
    package = build_package(
        tmp_path / "w.gguf", template=tmp_path / "template", system="be brief", licenses=(tmp_path / "licence",)
    )

    create(
        client, model="x", files={"w.gguf": upload(client, weights)}, template="<{{ .Prompt }}>", system="be brief",
        license="MIT & more",
    )  # fmt: skip

    listed = client.get("/api/tags").json["models"][0]["digest"]
    assert f"sha256:{listed}" == digest_of(package.manifest)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"), (0.1, "0.1"), (1e-5, "0.00001"), (1e-6, "0.000001"), (1e-7, "1e-7"), (1.5e-10, "1.5e-10"),
        (1e20, "100000000000000000000"), (1e21, "1e+21"), (-0.0, "-0"), (2**60, "1152921504606846976"), (True, "true"),
        (None, "null"), ("<&>\u2028\"\\\n\t", '"\\u003c\\u0026\\u003e\\u2028\\"\\\\\\n\\t"'), ("é", '"é"'), ([], "[]"),
        ({}, "{}"), ({"b": [1, {"a": 2.50}]}, '{"b":[1,{"a":2.5}]}'),
    ],
)  # fmt: skip
def test_json_is_written_as_the_reference_writes_it(value, text):
    assert go_json(value) == text
    assert json.loads(go_json(value)) == value


def test_maps_are_sorted_by_the_bytes_of_their_names():
    assert list(in_order({"b": 1, "a": {"é": 1, "z": [{"y": 1, "x": 2}]}})) == ["a", "b"]
    assert go_json(in_order({"a": {"é": 1, "z": [{"y": 1, "x": 2}]}})) == '{"a":{"z":[{"x":2,"y":1}],"é":1}}'
