"""From a stored manifest to a model: which layers are read, and what they say."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.model import Model, load_model
from runtime.options import LoadOptions
from runtime.summary import summary
from storage.errors import ManifestUnknown, NameUnknown
from storage.reference import ModelName
from storage.store import Store
from tests.stored_models import model_spec, open_store, push_layers, push_model
from tests.tiny_gguf import write_tiny_gguf

THINKING = "{% if enable_thinking %}<think>{% endif %}{{ messages }}</think>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def loaded(store: Store, name: str) -> Model:
    return load_model(store, ModelName.parse(name))


def test_every_layer_finds_its_place(store: Store, tiny: Path) -> None:
    digest = push_model(
        store,
        "ns/m:v1",
        tiny,
        config={"model_family": "llama", "model_families": ["llama"], "model_type": "1K", "file_type": "Q8_0"},
        template="{{ .Prompt }}",
        system="be brief",
        params='{"stop":["x"],"temperature":0.5}',
        messages='[{"role":"user","content":"hi","extra":1}]',
        license="MIT",
    )

    model = loaded(store, "NS/M:v1")

    assert model.digest == digest
    assert (model.template, model.system, model.licenses) == ("{{ .Prompt }}", "be brief", ("MIT",))
    assert model.params == {"stop": ["x"], "temperature": 0.5}
    assert model.messages == ({"role": "user", "content": "hi"},)
    assert model.details == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "1K",
        "quantization_level": "Q8_0",
        "context_length": 2048,
        "embedding_length": 64,
    }


def test_a_tag_that_moved_is_another_model(store: Store, tiny: Path) -> None:
    push_model(store, "m", tiny, system="one")
    assert loaded(store, "m").system == "one"

    push_model(store, "m", tiny, system="two")

    assert loaded(store, "m").system == "two"


def test_tags_are_found_in_any_case(store: Store, tiny: Path) -> None:
    push_model(store, "m:Q4", tiny)

    assert loaded(store, "m:q4").name.display == "m:Q4"


def test_what_is_not_there_is_unknown(store: Store, tiny: Path) -> None:
    push_model(store, "m", tiny)

    for name in ("nobody", "m:other"):
        with pytest.raises((NameUnknown, ManifestUnknown)):
            loaded(store, name)


@pytest.mark.parametrize(
    ("media_type", "title"),
    [
        ("application/vnd.docker.ai.gguf.v3", ""),
        ("application/vnd.cncf.model.weight.v1.gguf", ""),
        ("application/x-gguf", ""),
        ("application/vnd.cncf.model.weight.v1.raw", ""),
        ("application/octet-stream", "model.GGUF"),
        ("application/octet-stream", ""),
    ],
)
def test_weights_of_other_tools_are_recognised(store: Store, tiny: Path, media_type: str, title: str) -> None:
    layers = [("text/plain", b"README" * 100), (media_type, tiny.read_bytes())]
    push_layers(store, "m", layers, titles=("README.md", title) if title else ())

    model = loaded(store, "m")

    assert model.weights.media_type == media_type
    assert model.details["parameter_size"].endswith("K")
    assert model.capabilities == ["completion"]


def test_a_projector_beside_the_weights_is_told_by_its_header(store: Store, tiny: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "mmproj.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    kind = "application/vnd.docker.ai.gguf.v3"
    push_layers(store, "m", [(kind, (tmp_path / "mmproj.gguf").read_bytes()), (kind, tiny.read_bytes())])

    model = loaded(store, "m")

    assert model.header.architecture == "llama"
    assert len(model.projectors) == 1
    assert "vision" in model.capabilities


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("params", "[]"),
        ("params", "{"),
        ("params", "[" * 50_000),
        ("messages", "{}"),
        ("messages", '["x"]'),
        ("system", "x" * (1024**2 + 1)),
    ],
    ids=lambda value: value[:10],
)
def test_layers_that_make_no_sense_make_the_model_unusable(store: Store, tiny: Path, kind: str, text: str) -> None:
    push_model(store, "m", tiny, **{kind: text})

    with pytest.raises(ModelUnusable):
        loaded(store, "m")


def test_a_manifest_without_weights_is_unusable(store: Store) -> None:
    push_layers(store, "m", [("application/vnd.oci.image.layer.v1.tar+gzip", b"\x1f\x8b" + bytes(100))])

    with pytest.raises(ModelUnusable):
        loaded(store, "m")


def test_damaged_weights_are_refused_before_anything_is_started(store: Store, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny.read_bytes()[:-5000])
    push_model(store, "m", tmp_path / "cut.gguf")

    with pytest.raises(GGUFInvalid):
        loaded(store, "m")


def test_a_remote_stub_is_unusable(store: Store) -> None:
    push_layers(store, "m", [("text/plain", b"x")], config={"remote_host": "https://example.com", "remote_model": "y"})

    with pytest.raises(ModelUnusable, match="another server"):
        loaded(store, "m")


@pytest.mark.parametrize(
    ("template", "config", "layers", "expected"),
    [
        (None, {}, {}, ["completion"]),
        ("{{ messages }}{{ tools }}", {}, {}, ["completion", "tools"]),
        (THINKING, {}, {}, ["completion", "thinking"]),
        ("{{ content.split('</think>') }}", {}, {}, ["completion", "thinking"]),
        ("{{ content.split('</think>') }}{{ reasoning_content }}", {}, {}, ["completion"]),
        (None, {"capabilities": ["image"]}, {}, ["image", "completion"]),
        (None, {"parser": "qwen3-thinking"}, {}, ["completion", "tools", "thinking"]),
        (None, {"model_family": "gptoss"}, {}, ["completion", "thinking"]),
        (None, {}, {"template": "{{ .Tools }}{{ .Suffix }} .Thinking"}, ["completion", "tools", "insert"]),
    ],
)
def test_capabilities_follow_config_weights_and_templates(
    store: Store,
    tmp_path: Path,
    template: str | None,
    config: dict[str, object],
    layers: dict[str, str],
    expected: list[str],
) -> None:
    push_model(store, "m", write_tiny_gguf(tmp_path / "t.gguf", chat_template=template), config=config, **layers)

    assert loaded(store, "m").capabilities == expected


def test_embedding_models_do_not_complete(store: Store, tmp_path: Path) -> None:
    push_model(store, "m", write_tiny_gguf(tmp_path / "t.gguf", arch="bert", chat_template=None))

    assert loaded(store, "m").capabilities == ["embedding"]


def test_the_list_agrees_with_the_model(store: Store, tiny: Path) -> None:
    push_model(store, "m", tiny)
    (row,) = store.repositories.tagged(after=None, limit=10)

    found = summary(store, row.repository, row.digest)

    model = loaded(store, "m")
    assert found is not None
    assert found.details == model.details
    assert found.capabilities == model.capabilities
    assert found.size == model.layers.size == tiny.stat().st_size + len(json.dumps({}))


def test_the_runner_is_told_the_stored_file_and_what_it_needs(store: Store, tiny: Path) -> None:
    push_model(store, "m", tiny)
    model = loaded(store, "m")

    spec = model_spec(store, model, LoadOptions(num_ctx=512))

    assert Path(spec.path).read_bytes() == tiny.read_bytes()
    assert spec.identity == str(model.weights.digest)
    assert (spec.trained_context, spec.name, spec.digest) == (2048, "m:latest", model.digest.encoded)
    assert 0.9 * tiny.stat().st_size < spec.memory.weights_bytes + 10_000 < 1.1 * tiny.stat().st_size  # bar the header
    assert spec.memory.kv_bytes_per_token == 2 * 2 * 32 * 2
    assert not spec.is_embedding


def test_copies_share_a_runner_whatever_their_texts(store: Store, tiny: Path) -> None:
    push_model(store, "a", tiny, system="A")
    push_model(store, "b", tiny, system="B")

    specs = [model_spec(store, loaded(store, name), LoadOptions()) for name in ("a", "b")]

    assert specs[0].identity == specs[1].identity


def test_a_pushers_long_texts_are_neither_listed_nor_sent_to_the_supervisor(store: Store, tiny: Path) -> None:
    long = "x" * 10_000
    config = {"model_family": long, "model_families": [long] * 50, "model_type": long, "file_type": {"a": long}}
    push_model(store, "m", tiny, config=config | {"model_format": long, "context_length": 7})
    (row,) = store.repositories.tagged(after=None, limit=10)
    listed = summary(store, row.repository, row.digest)

    model = loaded(store, "m")

    sent = model_spec(store, model, LoadOptions()).details
    assert listed is not None
    assert listed.details == model.details
    assert len(json.dumps(sent)) <= len(json.dumps(model.details)) < 4000
    assert (sent["family"], model.details["context_length"]) == ("x" * 128, 7)
