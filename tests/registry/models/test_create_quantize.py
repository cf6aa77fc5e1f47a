"""Weights that are made smaller while they become a model: the real llama.cpp, on a small model of full precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.full_gguf import write_full_gguf
from tests.made_models import create, gguf_bytes, layers, made, names, refused, shards, show, upload

PSEUDO = "0" * 19


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("full") / "full.gguf"
    return write_full_gguf(path, "F16", width=256).read_bytes()


@pytest.mark.parametrize(
    ("key", "asked", "level"),
    [
        ("quantize", "q4_K_m", "Q4_K_M"),
        ("quantization", "Q4_K", "Q4_K_M"),
        ("quantize", "q8_0", "Q8_0"),
        ("quantize", "F32", "F32"),
    ],
)
def test_trap_76_weights_are_made_smaller_and_it_is_told(client, full, key, asked, level):
    lines = create(client, model="small", files={"full.gguf": upload(client, full)}, **{key: asked})

    told = [line for line in lines if line["status"] == f"quantizing F16 model to {level}"]
    assert told
    assert {line["digest"] for line in told} == {PSEUDO}
    assert told[-1]["completed"] == told[-1]["total"] > 0
    assert lines[-1] == {"status": "success"}
    assert show(client, "small")["details"]["quantization_level"] == level


def test_a_stored_model_can_be_made_smaller(client, full, store):
    create(client, model="full", files={"full.gguf": upload(client, full)}, system="kept")

    shown = made(client, model="small", **{"from": "full"}, quantize="Q8_0")

    assert shown["details"]["quantization_level"] == "Q8_0"
    assert shown["details"]["parent_model"] == "full:latest"
    assert shown["system"] == "kept"
    assert show(client, "full")["details"]["quantization_level"] == "F16"
    assert layers(client, "library/small", "model")[0]["size"] < len(full)


def test_weights_at_the_level_are_left_alone(client, full):
    lines = create(client, model="same", files={"full.gguf": upload(client, full)}, quantize="f16")

    assert not [line for line in lines if line["status"].startswith("quantizing")]
    assert layers(client, "library/same", "model")[0]["size"] == len(full)


def test_a_draft_model_has_a_level_of_its_own(client, tiny, full):
    create(client, model="x", **{"from": "tiny"}, draft_files={"d.gguf": upload(client, full)}, draft_quantize="q8_0")

    assert layers(client, "library/x", "draft")[0]["size"] < len(full)


def test_nothing_but_blobs_is_left(client, full, tmp_path):
    create(client, model="small", files={"full.gguf": upload(client, full)}, quantize="q8_0")

    assert staged(tmp_path) == []


def test_weights_in_parts_are_not_quantized(client):
    files = {f"m-0000{number}-of-00002.gguf": upload(client, part) for number, part in enumerate(shards(2), 1)}

    status, message = refused(client, model="x", files=files, quantize="q8_0", stream=False)

    assert (status, message) == (400, "weights in several files cannot be quantized: merge them first")


def test_a_file_that_llama_cpp_must_not_see_is_refused_and_nothing_is_left(client, tmp_path):
    files = {"w.gguf": upload(client, gguf_bytes("llama", tensors=True, general__file_type=0))}

    status, message = refused(client, model="x", files=files, quantize="f16", stream=False)

    assert status == 400
    assert message.startswith("not a GGUF file that can be run")
    assert staged(tmp_path) == []
    assert names(client) == []


def staged(folder: Path) -> list[Path]:
    return list((folder / "data" / "uploads").iterdir())
