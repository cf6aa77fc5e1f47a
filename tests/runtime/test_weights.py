"""What passes, and what does not, before llama.cpp is shown a file."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.gguf import Header, Tensor, read_header
from runtime.gguf_checks import check_projector, check_weights
from runtime.gguf_reader import KEPT_ARRAY, Span
from runtime.gguf_types import ValueType
from runtime.model import Model, load_model
from runtime.options import LoadOptions
from runtime.weights import identity
from storage.reference import ModelName
from storage.store import Store
from tests.gguf_damage import text
from tests.stored_models import OLLAMA, model_spec, open_store, push_layers
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf").read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def projector(architecture: str = "clip") -> bytes:
    """A well-formed file with one tensor."""
    pairs = text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + pairs + text("v.weight") + struct.pack("<IQIQ", 1, 8, 0, 0)
    return head + bytes(-len(head) % 32) + bytes(32)


def pushed(store: Store, tiny: bytes, *projectors: bytes) -> Model:
    layers = [(OLLAMA + "model", tiny)] + [(OLLAMA + "projector", each) for each in projectors]
    push_layers(store, "m", layers)
    return load_model(store, ModelName.parse("m"))


def test_a_projector_is_told_to_the_runner_and_part_of_what_is_loaded(store: Store, tiny: bytes) -> None:
    model = pushed(store, tiny, projector())

    spec = model_spec(store, model, LoadOptions())

    assert Path(spec.projector).read_bytes() == projector()
    assert spec.identity == identity(model) == f"{model.weights.digest}+{model.projectors[0].digest}"
    assert spec.memory.projector_bytes >= 32


def test_a_model_without_a_projector_has_none(store: Store, tiny: bytes) -> None:
    spec = model_spec(store, pushed(store, tiny), LoadOptions())

    assert (spec.projector, spec.memory.projector_bytes) == ("", 0)


@pytest.mark.parametrize(
    "damaged",
    [projector("llama"), projector()[:-40], b"GGUF" + bytes(40), b"nothing of the kind"],
    ids=["another architecture", "cut", "empty", "no header"],
)
def test_a_projector_that_does_not_pass_is_shown_to_nobody(store: Store, tiny: bytes, damaged: bytes) -> None:
    model = pushed(store, tiny, damaged)

    with pytest.raises(GGUFInvalid):
        model_spec(store, model, LoadOptions())


def test_two_projectors_are_one_too_many(store: Store, tiny: bytes) -> None:
    model = pushed(store, tiny, projector(), projector() + b" ")

    with pytest.raises(ModelUnusable, match="2 projectors"):
        model_spec(store, model, LoadOptions())


def check(header: Header, raw: bytes = b"") -> None:
    check_weights(header, io.BytesIO(raw), len(raw))


def test_the_tiny_model_passes(tiny: bytes) -> None:
    check(read_header(io.BytesIO(tiny), len(tiny)), tiny)


FATAL = {
    "no layers": {"llama.block_count": 0},
    "more layers than there can be": {"llama.block_count": 513},
    "layers that are text": {"llama.block_count": "2"},
    "no width": {"llama.embedding_length": 0},
    "no context": {"llama.context_length": 0},
    "more predictions than layers": {"llama.nextn_predict_layers": 3},
    "heads that cannot share": {"llama.attention.head_count_kv": 3},
    "heads of a layer that cannot share": {"llama.attention.head_count_kv": [2, 3]},
    "long heads": {"llama.attention.key_length": 2**31},
    "experts that nobody visits": {"llama.expert_count": 8},
    "visits to no experts": {"llama.expert_used_count": 2},
    "more visits than experts": {"llama.expert_count": 8, "llama.expert_used_count": 9},
    "more experts than there can be": {"llama.expert_count": 1025, "llama.expert_used_count": 2},
    "groups that do not divide": {
        "llama.expert_count": 8, "llama.expert_used_count": 2, "llama.expert_group_count": 3,
        "llama.expert_group_used_count": 1,
    },
    "groups that nobody visits": {
        "llama.expert_count": 8, "llama.expert_used_count": 2, "llama.expert_group_count": 2,
    },
    "an unknown scaling": {"llama.rope.scaling.type": "quadratic"},
    "an unknown pooling": {"llama.pooling_type": 9},
    "a negative epsilon": {"llama.attention.layer_norm_rms_epsilon": -1.0},
    "an epsilon that is no number": {"llama.attention.layer_norm_rms_epsilon": float("nan")},
    "an infinite base": {"llama.rope.freq_base": float("inf")},
    "a vocabulary without end": {"llama.vocab_size": 2**32 - 1},
    "a part of several": {"split.count": 3},
    "two tokens of one text": {"tokenizer.ggml.tokens": ["a", "b", "a"]},
    "two tokens alike up to a NUL": {"tokenizer.ggml.tokens": ["a", "a\0b"]},
    "a token named as an empty one is": {"tokenizer.ggml.tokens": ["", "[EMPTY_0]"]},
    "no architecture": {"general.architecture": ""},
    "several scalings": {"llama.rope.scaling.type": ["none", "yarn"]},
    "a list of counts of parts": {"split.count": [1]},
    "parts that are text": {"split.count": "1"},
    "more tokens than can be": {"tokenizer.ggml.tokens": Span(ValueType.STRING, 2**20 + 1, 24)},
    "more tokens than can be, it says": {"llama.vocab_size": 2**20 + 1},
    "a vocabulary of books": {"tokenizer.ggml.tokens": [f"{number}" + "x" * 2**18 for number in range(65)]},
}  # fmt: skip


@pytest.mark.parametrize("changed", FATAL.values(), ids=FATAL.keys())
def test_what_would_end_llama_cpp_is_refused(changed: dict[str, object], tiny: bytes) -> None:
    header = read_header(io.BytesIO(tiny), len(tiny))

    with pytest.raises(GGUFInvalid) as refused:
        check(replace(header, metadata={**header.metadata, **changed}), tiny)  # type: ignore[dict-item]

    assert "\n" not in str(refused.value)


def test_one_part_of_several_is_not_shown_alone(tiny: bytes) -> None:
    header = read_header(io.BytesIO(tiny), len(tiny))

    for check_it in (lambda part: check(part, tiny), check_projector):
        with pytest.raises(GGUFInvalid, match="a part of the weights only"):
            check_it(replace(header, metadata={"general.architecture": "clip", "split.count": 2}))


WORDS = st.text("ab\0\ufffd", max_size=3)
ANYTHING = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), WORDS,
    st.lists(st.one_of(st.integers(-1, 2**40), WORDS, st.floats()), max_size=3),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted({key for changed in FATAL.values() for key in changed})), ANYTHING))
def test_values_of_any_type_pass_or_are_refused(tiny: bytes, told: dict[str, object]) -> None:
    header = read_header(io.BytesIO(tiny), len(tiny))

    try:
        check(replace(header, metadata={**header.metadata, **told}), tiny)  # type: ignore[dict-item]
    except GGUFInvalid as refused:
        assert len(str(refused)) < 300


def test_texts_that_are_no_text_are_not_taken_for_one_another(tiny: bytes) -> None:
    header = read_header(io.BytesIO(tiny), len(tiny))

    check(replace(header, metadata={**header.metadata, "tokenizer.ggml.tokens": ["\ufffd", "\ufffd"]}), tiny)


def test_twins_are_found_in_a_vocabulary_that_stays_in_the_file(tiny: bytes) -> None:
    tokens = [f"t{number}" for number in range(2 * KEPT_ARRAY)] + ["t7"]
    pairs = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(text, tokens))
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pairs
    header, vocabulary = read_header(io.BytesIO(tiny), len(tiny)), read_header(io.BytesIO(raw), len(raw))

    with pytest.raises(GGUFInvalid, match="two tokens"):
        check(replace(header, metadata={**header.metadata, **vocabulary.metadata}), raw)


@pytest.mark.parametrize("tensors", [(), (Tensor("t", (0, 4), "F32", 0, 0),)], ids=["none", "an empty one"])
def test_a_file_without_weights_is_refused(tensors: tuple[Tensor, ...], tiny: bytes) -> None:
    header = replace(read_header(io.BytesIO(tiny), len(tiny)), tensors=tensors)

    with pytest.raises(GGUFInvalid):
        check(header, tiny)
    with pytest.raises(GGUFInvalid):
        check_projector(replace(header, metadata={"general.architecture": "clip"}))
