"""What other tools' manifests say, in our words; and which of them are models that cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import GGUFInvalid, ModelUnusable, NotAModel
from runtime.foreign import config_words, license_layers, licenses, other_format, template_layer
from runtime.layers import Layer, Layers
from runtime.model import load_model
from runtime.summary import Summary, summary
from storage.digest import Digest
from storage.reference import ModelName
from storage.store import Store
from tests.foreign_models import DOCKER, KITOPS, MODELPACK
from tests.stored_models import OLLAMA, open_store, push_layers
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_lora import write_tiny_lora

NOTHING = Digest.of(b"")
OURS = "application/vnd.docker.container.image.v1+json"
DOCKER_TYPE, MODELPACK_TYPE = f"{DOCKER}model.config.v0.1+json", f"{MODELPACK}config.v1+json"
KITFILE_TYPE, UNTYPED = f"{KITOPS}config.v1+json", "application/json"


def described(config_type: str, *layers: tuple[str, str]) -> Layers:
    """A manifest of (media type, title)."""
    found = tuple(Layer(media_type, NOTHING, 1, title=title) for media_type, title in layers)
    return Layers(Layer(config_type, NOTHING, 1), found)


STATED = {"format": "gguf", "parameters": "361.82 M", "quantization": "IQ2_XXS/Q4_K_M", "context_size": 8192}
IN_OUR_WORDS = {"model_format": "gguf", "model_type": "361.82M", "file_type": "IQ2_XXS/Q4_K_M", "context_length": 8192}
PACKED = {"format": "SafeTensors", "paramSize": "8b", "quantization": "awq"}
PACKED_IN_OUR_WORDS = {"model_format": "safetensors", "model_type": "8B", "file_type": "awq"}


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        (DOCKER_TYPE, {"config": STATED}, IN_OUR_WORDS),
        (f"{DOCKER}model.config.v0.2+json", {"config": STATED}, IN_OUR_WORDS),
        (MODELPACK_TYPE, {"config": PACKED}, PACKED_IN_OUR_WORDS),
        (UNTYPED, {"config": PACKED, "modelfs": {}}, PACKED_IN_OUR_WORDS),
        (UNTYPED, {"config": STATED, "descriptor": {"created": "2026-01-01T00:00:00Z"}}, IN_OUR_WORDS),
        (UNTYPED, {"config": {"format": "gguf"}, "descriptor": {"createdAt": "2026"}}, {"model_format": "gguf"}),
        (KITFILE_TYPE, {"model": {"format": "gguf", "parameters": {"a": 1}}}, {"model_format": "gguf"}),
        (OURS, {"model_type": "7B", "config": {"Env": []}}, {"model_type": "7B", "config": {"Env": []}}),
        (DOCKER_TYPE, {"config": {"parameters": 7, "context_size": "8192", "format": None}}, {}),
        (DOCKER_TYPE, {"config": {"parameters": "", "quantization": " ", "context_size": True}}, {}),
        (DOCKER_TYPE, {"config": [STATED]}, {}),
        (DOCKER_TYPE, {}, {}),
    ],
)
def test_config_documents_in_our_words(kind: str, config: dict[str, Any], words: dict[str, Any]) -> None:
    assert config_words(described(kind), config) == words


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        (KITFILE_TYPE, {"package": {"license": "MIT"}, "model": {"license": "Apache-2.0"}}, ["MIT", "Apache-2.0"]),
        (KITFILE_TYPE, {"package": {"license": "MIT"}, "model": {"license": "MIT"}}, ["MIT"]),
        (MODELPACK_TYPE, {"descriptor": {"licenses": ["MIT", 7, ""]}}, ["MIT"]),
        (MODELPACK_TYPE, {"descriptor": {"licenses": "MIT"}}, []),
        (OURS, {"package": {"license": "MIT"}}, []),
    ],
)
def test_licences_that_are_named(kind: str, config: dict[str, Any], named: list[str]) -> None:
    assert licenses(described(kind), config) == named


@pytest.mark.parametrize(
    ("media_type", "title", "is_one"),
    [
        (OLLAMA + "license", "", True),
        (f"{DOCKER}license", "", True),
        (f"{MODELPACK}doc.v1.raw", "LICENSE", True),
        ("text/plain", "docs/licence.txt", True),
        (f"{MODELPACK}weight.v1.tar", "LICENSE", False),
        ("text/plain", "licensed.gguf", False),
        ("text/plain", "", False),
    ],
)
def test_licences_that_are_layers(media_type: str, title: str, is_one: bool) -> None:
    assert bool(license_layers(described(OURS, (media_type, title)))) is is_one


@pytest.mark.parametrize(
    ("media_type", "title", "is_one"),
    [
        (f"{DOCKER}chat.template.jinja", "", True),
        (f"{MODELPACK}weight.config.v1.raw", "m/chat_template.jinja", True),
        (OLLAMA + "template", "", False),
        ("text/plain", "template.jinja", False),
    ],
)
def test_templates_that_are_jinja(media_type: str, title: str, is_one: bool) -> None:
    assert (template_layer(described(OURS, (media_type, title))) is not None) is is_one


@pytest.mark.parametrize(
    ("kind", "layer", "form"),
    [
        (OURS, (OLLAMA + "tensor", ""), "safetensors"),
        (DOCKER_TYPE, (f"{DOCKER}safetensors", ""), "safetensors"),
        (UNTYPED, (f"{DOCKER}dduf", ""), "dduf"),
        (MODELPACK_TYPE, (f"{MODELPACK}weight.v1.raw", "m.ONNX"), "onnx"),
        (KITFILE_TYPE, (f"{KITOPS}model.v1.raw", "m"), "of a format that the manifest does not tell"),
        (UNTYPED, ("application/octet-stream", "m.safetensors"), ""),
        (OURS, ("application/vnd.docker.image.rootfs.diff.tar.gzip", ""), ""),
    ],
)
def test_what_a_model_without_gguf_files_is_made_of(kind: str, layer: tuple[str, str], form: str) -> None:
    assert other_format(described(kind, layer), {}) == form


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
MEMBERS = st.sampled_from(["config", "descriptor", "model", "package", "modelfs", "license", "licenses", "parameters",
                           "paramSize", "format", "quantization", "context_size", "createdAt", "Labels"])  # fmt: skip
CONFIGS = st.dictionaries(MEMBERS, JSON_VALUES | st.dictionaries(MEMBERS, JSON_VALUES, max_size=4), max_size=4)


@given(CONFIGS, st.sampled_from([OURS, DOCKER_TYPE, MODELPACK_TYPE, KITFILE_TYPE, UNTYPED]))
def test_any_config_is_read(config: dict[str, Any], kind: str) -> None:
    words = config_words(described(kind), config)

    assert isinstance(words, dict)
    assert all(isinstance(each, str) for each in licenses(described(kind), config))
    assert isinstance(other_format(described(kind), words), str)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def summary_of(store: Store, layers: list[tuple[str, bytes]], **config: Any) -> Summary | None:
    digest = push_layers(store, "m", layers, config=config)
    return summary(store, ModelName.parse("m").repository, digest)


def test_ollamas_own_safetensors_are_listed_with_what_their_config_says(store: Store) -> None:
    facts = {"model_format": "safetensors", "model_family": "gemma3", "model_type": "4B", "file_type": "int4"}
    tensors = [(OLLAMA + "tensor", b"one"), (OLLAMA + "json", b"{}")]

    listed = summary_of(store, tensors, **facts, capabilities=["completion"])

    assert listed is not None
    assert listed.details == {
        "parent_model": "", "format": "safetensors", "family": "gemma3", "families": ["gemma3"],
        "parameter_size": "4B", "quantization_level": "int4",
    }  # fmt: skip
    assert listed.capabilities == ["completion"]
    with pytest.raises(ModelUnusable) as refused:
        load_model(store, ModelName.parse("m"))
    assert str(refused.value) == listed.reason
    assert "safetensors" in listed.reason


def test_what_runs_on_another_server_is_listed_with_its_place(store: Store) -> None:
    listed = summary_of(store, [], remote_host="https://ollama.com:443", remote_model="big:latest")

    assert listed is not None
    assert listed.remote == {"remote_host": "https://ollama.com:443", "remote_model": "big:latest"}
    assert "another server" in listed.reason


def test_a_file_that_is_only_named_like_a_licence_hurts_nobody(store: Store, tmp_path: Path) -> None:
    raw = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    push_layers(
        store,
        "m",
        [("a/b", raw), ("a/b", b"\xff\xfe"), ("a/b", b"be kind")],
        titles=("m.gguf", "LICENSE", "LICENSE.txt"),
    )

    assert load_model(store, ModelName.parse("m")).licenses == ("be kind",)


def test_an_adapter_alone_is_no_model(store: Store, tmp_path: Path) -> None:
    raw = write_tiny_lora(tmp_path / "lora.gguf").read_bytes()

    assert summary_of(store, [("application/octet-stream", raw)]) is None
    with pytest.raises(NotAModel):
        load_model(store, ModelName.parse("m"))


def test_hundreds_of_large_headers_are_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.artifact.MAX_HEADER_BYTES", 4 * 20)
    empty = b"GGUF" + b"\x03" + bytes(3) + bytes(16)
    files = [(f"{DOCKER}gguf.v3", empty + bytes([number])) for number in range(40)]

    with pytest.raises(GGUFInvalid, match="their headers have more than"):
        push_layers(store, "m", files)
        load_model(store, ModelName.parse("m"))
