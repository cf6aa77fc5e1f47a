"""Vectors and scores of many calls at once: each is what it would be alone, and nobody waits for another's end."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import InputInvalid, PromptTooLong
from runtime.runner import library
from runtime.runner.embedding import Embedder
from runtime.runner.library import Context, Log, Model
from runtime.runner.settings import RunnerSettings
from tests.answers import Recorder
from tests.embedded import ask, embed, finish, vectors
from tests.rank_gguf import rank_bert, write_rank_gguf
from tests.tiny_gguf import write_tiny_gguf

Load = Callable[..., Embedder]
Vectors = NDArray[np.float32]
KINDS = [
    pytest.param({}, id="generates"),
    pytest.param({"pooling": 0}, id="says none"),
    pytest.param({"pooling": 2}, id="first token"),
    pytest.param({"pooling": 3}, id="last token"),
    pytest.param({"arch": "bert"}, id="bert, mean"),
    pytest.param({"arch": "bert", "pooling": 2}, id="bert, first token"),
    pytest.param({"arch": "bert", "pooling": 3}, id="bert, last token"),
]
SLICED = KINDS[:4]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, log: Log) -> Load:
    """An embedder on a tiny model; keywords are the model's, `settings` the runner's."""
    folder = tmp_path_factory.mktemp("models")
    numbers = itertools.count()

    def load(settings: dict[str, Any] | None = None, *, ranks: bool = False, **model: Any) -> Embedder:
        path = folder / f"{next(numbers)}.gguf"
        write = write_rank_gguf if ranks else write_tiny_gguf
        write(path, **model)
        told = RunnerSettings(str(path), "", **{"context_length": 1024, **(settings or {})})
        return Embedder(Model(told, log, lambda _: None), told, threads=1)

    return load


@pytest.fixture(scope="module")
def sliced(load: Load) -> Embedder:
    return load({"context_length": 2048})


@pytest.fixture(scope="module")
def whole(load: Load) -> Embedder:
    return load(arch="bert")


@pytest.fixture(scope="module")
def ranker(load: Load) -> Embedder:
    return load(ranks=True)


def likeness(left: Vectors, right: Vectors) -> float:
    """The smallest cosine between vectors of one and of the other."""
    assert np.linalg.norm(left, axis=1) == pytest.approx(1, abs=1e-5)
    return float((left * right).sum(axis=1).min())


def words(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(["the", "ship", "hello", "world", "in", "on", "é", "42"], count))


MIXTURE = ["hello", words(30, 1), "", words(120, 2), "a", words(5, 3), words(70, 4), "x" * 40]


@pytest.mark.parametrize("model", KINDS)
def test_an_input_has_the_same_vector_in_any_company(load: Load, model: dict[str, Any]) -> None:
    embedder = load(**model)
    alone = np.concatenate([embed(embedder, [text]) for text in MIXTURE])

    asked = [ask(embedder, [*MIXTURE[turn:], *MIXTURE[:turn]])[1] for turn in range(4)]
    finish(embedder)

    for turn, sink in enumerate(asked):
        assert likeness(vectors(sink), np.roll(alone, -turn, axis=0)) > 0.9999
        assert sink.last["prompt_tokens"] == asked[0].last["prompt_tokens"]


@pytest.mark.parametrize("model", SLICED)
def test_a_long_input_has_the_same_vector_however_it_is_sliced(load: Load, model: dict[str, Any]) -> None:
    embedder = load({"context_length": 2048}, **model)
    at_once = load({"context_length": 2048, "num_batch": 2048}, **model)
    inputs = ["a", words(700), "b", words(900, 1)]

    _, company = ask(embedder, [words(9, number) for number in range(60)])
    _, sink = ask(embedder, inputs)
    finish(embedder)

    assert likeness(vectors(sink), embed(at_once, inputs)) > 0.9999
    assert len(vectors(company)) == 60


def test_calls_share_steps(whole: Embedder) -> None:
    sinks = [ask(whole, [f"text {number}"])[1] for number in range(20)]

    whole.step()

    assert all(sink.last["event"] == "done" for sink in sinks)


@pytest.mark.parametrize("kind", ["sliced", "whole"])
def test_a_call_of_thousands_does_not_keep_one_waiting(request: pytest.FixtureRequest, kind: str) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    many, far = ask(embedder, [f"text number {number}" for number in range(2000)])
    for _ in range(3):
        embedder.step()
    _, near = ask(embedder, ["hello"])

    embedder.step()

    assert near.last["event"] == "done"
    assert sum(len(base64.b64decode(event["data"])) for event in far.events) < 2000 * 64 * 4
    embedder.cancel(many)
    assert not embedder.has_work


def test_a_long_input_does_not_keep_a_short_one_waiting(sliced: Embedder) -> None:
    _, first = ask(sliced, [words(800)])
    _, second = ask(sliced, [words(800, 1)])
    sliced.step()
    _, short = ask(sliced, ["hello"])
    _, medium = ask(sliced, [words(100)])

    for _ in range(4):
        sliced.step()

    assert short.last["event"] == medium.last["event"] == "done"
    assert not first.events or not second.events
    finish(sliced)
    assert likeness(vectors(second), embed(sliced, [words(800, 1)])) > 0.9999


@pytest.mark.parametrize("kind", ["sliced", "whole"])
def test_vectors_come_in_order_and_early(request: pytest.FixtureRequest, kind: str) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    inputs = [f"text number {number} " * 4 for number in range(120)]
    _, sink = ask(embedder, inputs)

    embedder.step()

    assert [event["event"] for event in sink.events] == ["vectors"]
    finish(embedder)
    assert likeness(vectors(sink)[97:98], embed(embedder, [inputs[97]])) > 0.9999


def test_a_call_without_inputs_ends_at_once(whole: Embedder) -> None:
    _, sink = ask(whole, [])
    finish(whole)

    assert sink.events == [{"event": "done", "prompt_tokens": 0}]


def test_a_reader_who_is_behind_holds_up_nobody(whole: Embedder) -> None:
    _, behind = ask(whole, ["a"])
    behind.is_congested = True
    assert not whole.step()
    _, sink = ask(whole, ["b"])

    whole.step()

    assert (behind.events, sink.last["event"]) == ([], "done")
    behind.is_congested = False
    finish(whole)
    assert behind.last["event"] == "done"


def test_a_long_input_that_is_given_up_leaves_its_place(sliced: Embedder) -> None:
    job, _ = ask(sliced, [words(900)])
    _, next_one = ask(sliced, [words(800)])
    sliced.step()
    sliced.cancel(job)
    sliced.cancel(job)

    finish(sliced)

    assert likeness(vectors(next_one), embed(sliced, [words(800)])) > 0.9999


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a tiny model is over before anybody looks who is still there."""
    monkeypatch.setattr(library, "_LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("looks_at_once")
@pytest.mark.parametrize("kind", ["sliced", "whole", "ranker"])
def test_a_step_that_nobody_waits_for_any_more_is_given_up(request: pytest.FixtureRequest, kind: str) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    asked = [ask(embedder, [words(60, number), words(50, number)])[1] for number in range(3)]
    for sink in asked:
        sink.is_gone = True

    finish(embedder, most=2)

    assert [sink.events for sink in asked] == [[], [], []]
    _, after = ask(embedder, MIXTURE)
    finish(embedder)
    assert likeness(vectors(after), embed(embedder, MIXTURE)) > 0.9999


@pytest.mark.usefixtures("looks_at_once")
@pytest.mark.parametrize("kind", ["sliced", "whole"])
def test_a_step_that_one_waits_for_is_computed(request: pytest.FixtureRequest, kind: str) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    _, left = ask(embedder, [words(60)])
    _, stays = ask(embedder, [words(60, 1)])
    left.is_gone = True

    finish(embedder)

    assert likeness(vectors(stays), embed(embedder, [words(60, 1)])) > 0.9999


@pytest.mark.usefixtures("looks_at_once")
def test_a_long_input_whose_reader_leaves_gives_its_place_to_the_next(sliced: Embedder) -> None:
    _, left = ask(sliced, [words(900)])
    sliced.step()
    left.is_gone = True
    sliced.step()
    assert not sliced.has_work

    _, stays = ask(sliced, [words(800)])
    finish(sliced)

    assert left.events == []
    assert likeness(vectors(stays), embed(sliced, [words(800)])) > 0.9999


@pytest.mark.parametrize("kind", ["sliced", "whole"])
def test_only_the_guilty_fails(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    (poison,) = embedder.job(["~"], Recorder(), truncate=True).inputs
    decode = Context.decode

    def refuse(context: Context, batch: Any, *rest: Any) -> int:
        return (
            -3 if holds(batch, poison) else decode(context, batch, *rest)
        )  # no input of ours brings it about by itself

    monkeypatch.setattr(Context, "decode", refuse)
    good = [ask(embedder, [words(20, number), "hello"])[1] for number in range(3)]
    _, bad = ask(embedder, ["hello", "~"])
    long = ask(embedder, [words(700 if kind == "sliced" else 100)])[1]
    finish(embedder, most=40)

    assert [sink.last["event"] for sink in (*good, long)] == ["done"] * 4
    assert bad.last["event"] == "error"
    assert "llama.cpp cannot compute the embedding (code -3)" in bad.last["message"]
    monkeypatch.undo()
    assert likeness(vectors(good[0]), embed(embedder, [words(20), "hello"])) > 0.9999


@pytest.mark.parametrize("kind", ["sliced", "whole", "ranker"])
def test_what_is_no_number_is_an_error_of_its_own_call(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    (poison,) = embedder.job(["~"], Recorder(), truncate=True).inputs
    spread(monkeypatch, poison)
    sinks = [Recorder() for _ in range(3)]
    for text, sink in zip(["hello", "~", "world"], sinks, strict=True):
        ranks = kind == "ranker"
        embedder.submit(
            embedder.rank_job(text, [""], sink, truncate=True) if ranks else embedder.job([text], sink, truncate=True)
        )

    finish(embedder, most=10)

    assert [sink.last["event"] for sink in sinks] == ["done", "error", "done"]
    told = {"event": "error", "kind": "InputInvalid", "message": "embedding contains NaN or Inf values"}
    assert sinks[1].last == told


def spread(monkeypatch: pytest.MonkeyPatch, poison: list[int]) -> None:
    """An input whose numbers overflow spoils the others of its step, as attention lets it."""
    decode, array = Context.decode, Context._array
    spoilt: list[bool] = [False]

    def watch(context: Context, batch: Any, *rest: Any) -> int:
        spoilt[0] = holds(batch, poison)
        return decode(context, batch, *rest)

    def spoil(pointer: Any, length: int) -> Vectors:
        return array(pointer, length) * (np.nan if spoilt[0] else 1)

    monkeypatch.setattr(Context, "decode", watch)
    monkeypatch.setattr(Context, "_array", staticmethod(spoil))


def holds(batch: Any, poison: list[int]) -> bool:
    tokens = batch._tokens[: batch.size].tolist()
    return any(tokens[at : at + len(poison)] == poison for at in range(len(tokens)))


def test_inputs_too_long_are_cut_or_refused(load: Load) -> None:
    embedder = load({"context_length": 4096}, arch="bert", n_ctx_train=32)
    _, sink = ask(embedder, ["x" * 100])
    finish(embedder)

    assert sink.last["prompt_tokens"] == 32
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        embedder.job(["x" * 100], Recorder(), truncate=False)


def test_the_context_grows_for_an_input_longer_than_a_step(load: Load) -> None:
    embedder = load({"context_length": 2000}, arch="bert")
    long = words(600)
    (before,) = embed(embedder, ["hello"])

    (count,) = map(len, embedder.job([long], Recorder(), truncate=True).inputs)
    found = embed(embedder, ["hello", long, "hello"])

    assert count > 1024
    assert found[0] == pytest.approx(before, abs=1e-3)
    assert found[2] == pytest.approx(before, abs=1e-3)
    assert likeness(found[1:2], embed(embedder, [long])) > 0.9999


PAIRS = ["a panda is a bear", "hello world", "the ship sails", "paris is the capital of france!", "a"]


def rank(embedder: Embedder, query: str, documents: list[str], *, truncate: bool = True) -> Recorder:
    sink = Recorder()
    embedder.submit(embedder.rank_job(query, documents, sink, truncate=truncate))
    finish(embedder)
    return sink


def scores(sink: Recorder) -> list[float]:
    assert sink.last["event"] == "done", sink.last
    return [score for event in sink.events[:-1] for score in event["data"]]


def test_documents_have_the_scores_that_the_weights_give(ranker: Embedder) -> None:
    found = rank(ranker, "what is a panda?", PAIRS)

    assert scores(found) == pytest.approx([rank_bert().score("what is a panda?", text) for text in PAIRS], abs=5e-3)
    assert scores(found) == pytest.approx(  # processors have other kernels for one text than for five
        [score for text in PAIRS for score in scores(rank(ranker, "what is a panda?", [text]))], abs=1e-3
    )
    assert found.last["prompt_tokens"] == sum(
        len(rank_bert().tokens("what is a panda?")) + len(rank_bert().tokens(text)) - 1 for text in PAIRS
    )


def test_the_document_is_cut_and_never_the_query(ranker: Embedder) -> None:
    assert rank(ranker, "hello", ["panda " * 300]).last["prompt_tokens"] == ranker.limit == 128
    with pytest.raises(PromptTooLong):
        ranker.rank_job("hello", ["panda " * 300], Recorder(), truncate=False)
    with pytest.raises(PromptTooLong):
        ranker.rank_job("panda " * 300, ["hello"], Recorder(), truncate=True)


def test_a_model_that_ranks_embeds_too(ranker: Embedder) -> None:
    _, embedded = ask(ranker, ["hello", "world"])
    ranked = rank(ranker, "hello", ["world"])

    assert len(scores(ranked)) == 1
    assert vectors(embedded).shape == (2, 64)


def test_a_model_that_does_not_rank_says_so(whole: Embedder) -> None:
    with pytest.raises(InputInvalid, match="does not rank"):
        whole.rank_job("a", ["b"], Recorder(), truncate=True)
