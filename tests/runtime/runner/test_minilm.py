"""A real model of sentences: the runtime's vectors beside those that the published weights give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import PromptTooLong
from runtime.runner.embedding import Embedder
from runtime.runner.library import Log, Model
from runtime.runner.settings import RunnerSettings
from tests import minilm
from tests.answers import Recorder
from tests.embedded import embed

SENTENCES = [
    "a",
    "The cat sat on the mat.",
    "A cat was sitting on a rug.",
    "SELECT name FROM users WHERE id = 1;",
    "What is the capital of France?",
    "Zürich, naïve café — déjà vu!",
    "日本語 and 中文 mixed with English",
    "Привет, мир: как дела?",
    "emoji 🚢 and tabs\tand\nnew lines",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "It's 3.14159 (or so), isn't it? e-mail: a_b@c.example #1 $5 50%",
    "Tonnage is what a ship can carry. " * 10,
    " ".join(f"word{number}" for number in range(200)),  # some 600 tokens: cut
    "The quick brown fox jumps over the lazy dog. " * 40,  # some 400: cut
]
LIMIT = 256


@pytest.fixture(scope="module")
def load(log: Log) -> Callable[..., Embedder]:
    def load(context_length: int = LIMIT) -> Embedder:
        settings = RunnerSettings(str(minilm.fetch()), "", context_length)
        return Embedder(Model(settings, log, lambda _: None), settings, threads=1)

    return load


@pytest.fixture(scope="module")
def embedder(load: Callable[..., Embedder]) -> Embedder:
    return load()


@pytest.fixture(scope="module")
def packed(embedder: Embedder) -> NDArray[np.float32]:
    return embed(embedder, SENTENCES)


def test_sentences_have_the_vectors_that_the_original_weights_give(packed: NDArray[np.float32]) -> None:
    original = np.stack([minilm.original().vector(text, LIMIT) for text in SENTENCES])

    assert (packed * original).sum(axis=1).min() > 0.999


def test_sentences_are_read_into_the_tokens_of_the_original(embedder: Embedder) -> None:
    job = embedder.job(SENTENCES, Recorder(), truncate=True)

    assert job.inputs == [minilm.original().tokens(text, LIMIT) for text in SENTENCES]


def test_a_sentence_has_the_same_vector_alone(embedder: Embedder, packed: NDArray[np.float32]) -> None:
    alone = np.concatenate([embed(embedder, [text]) for text in SENTENCES])

    assert (packed * alone).sum(axis=1).min() > 0.9999


def test_likeness_makes_sense(packed: NDArray[np.float32]) -> None:
    _, cat, other_cat, query, *_ = packed

    assert cat @ other_cat > 0.5 > cat @ query


def test_the_model_has_no_more_positions_than_it_was_trained_with(load: Callable[..., Embedder]) -> None:
    wide = load(8192)

    (cut,) = wide.job(["word " * 3000], Recorder(), truncate=True).inputs

    assert len(cut) == wide.limit == 512
    assert cut[-1] == cut[511] == minilm.original().tokens("")[-1]
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        wide.job(["word " * 3000], Recorder(), truncate=False)
    assert len(wide.job(["word " * 500], Recorder(), truncate=False).inputs[0]) == 502
