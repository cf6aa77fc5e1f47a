"""The loop of a runner on a real, tiny model: many at once answer as each would alone."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import InputInvalid, LoadFailed, PromptTooLong
from runtime.messages import GenerateRequest
from runtime.options import SampleOptions
from runtime.runner.engine import Engine
from runtime.runner.library import Log, Model
from runtime.runner.settings import RunnerSettings
from tests.answers import Recorder, finish, run, start
from tests.tiny_gguf import write_tiny_gguf

CONTEXT = 256
PROMPTS = [
    "hello world",
    "the <|im_start|> of it",
    "x" * 70,
    "Once upon a time, " * 9,
    "é€𝄞",
    "a",
    "in the world" * 3,
    "0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def load(folder: Path, log: Log) -> Callable[..., Engine]:
    """An engine on a tiny model; keywords are the model's, `settings` the runner's."""

    def load(settings: dict[str, Any] | None = None, **model: Any) -> Engine:
        name = "-".join(f"{key}-{value}" for key, value in model.items()) or "plain"
        path = folder / f"{name}.gguf"
        if not path.exists():
            write_tiny_gguf(path, **model)
        given = {"context_length": CONTEXT, "parallel": 8, "num_thread": 1, **(settings or {})}
        told = RunnerSettings(path=str(path), socket="", **given)
        return Engine(Model(told, log, lambda _: None), told)

    return load


@pytest.fixture(scope="module")
def engine(load: Callable[..., Engine]) -> Engine:
    return load()


def ask(prompt: str, *, tokens: int = 24, shift: bool = True, truncate: bool = True, **options: Any) -> GenerateRequest:
    sample = SampleOptions(**{"temperature": 0.0, "num_predict": tokens, **options})
    return GenerateRequest(prompt, sample, shift=shift, truncate=truncate, want_tokens=True)


def test_many_at_once_answer_as_each_alone(load: Callable[..., Engine]) -> None:
    engine = load()
    alone = [run(load(), ask(prompt))[0].text for prompt in PROMPTS]

    together = [sink.text for sink in run(engine, *map(ask, PROMPTS))]
    again = [sink.text for sink in run(engine, *map(ask, reversed(PROMPTS)))]

    assert together == alone
    assert again == alone[::-1]
    assert len(set(alone)) == len(alone)


def test_more_requests_than_slots_wait_their_turn(load: Callable[..., Engine]) -> None:
    engine = load({"parallel": 2})

    sinks = run(engine, *[ask(prompt, tokens=5) for prompt in PROMPTS])

    assert [sink.last["tokens"] for sink in sinks] == [5] * len(PROMPTS)


def test_statistics(engine: Engine) -> None:
    (sink,) = run(engine, ask("hello world", tokens=7))

    done = sink.last
    assert (done["event"], done["reason"], done["tokens"], done["prompt_tokens"]) == ("done", "length", 7, 2)
    assert done["prompt_ns"] > 0 and done["tokens_ns"] > 0
    assert len(done["context"]) == 9


def test_the_context_of_an_answer_continues_it(engine: Engine) -> None:
    (whole,) = run(engine, ask("hello", tokens=16))
    (first,) = run(engine, ask("hello", tokens=8))
    rest = GenerateRequest("", SampleOptions(temperature=0, num_predict=8), context=tuple(first.last["context"]))

    (second,) = run(engine, rest)

    assert first.text + second.text == whole.text


@pytest.mark.parametrize("tokens", [0, -1])
def test_without_a_bound_an_answer_ends_after_ten_windows(load: Callable[..., Engine], tokens: int) -> None:
    engine = load({"context_length": 16})

    (sink,) = run(engine, ask("hello", tokens=tokens, temperature=1.0, seed=3))

    assert (sink.last["reason"], sink.last["tokens"]) == ("length", 160)


def test_a_window_that_does_not_shift_ends_the_answer(load: Callable[..., Engine]) -> None:
    (sink,) = run(load({"context_length": 16}), ask("hello", tokens=100, shift=False))

    assert (sink.last["reason"], sink.last["tokens"]) == ("length", 16)  # one in the prompt, the last one not stored


def test_a_stop_string_ends_the_answer_and_is_not_shown(engine: Engine) -> None:
    (whole,) = run(engine, ask("hello"))
    stop = whole.text[6:9]

    (sink,) = run(engine, ask("hello", stop=(stop,)))

    assert sink.text == whole.text.split(stop)[0]
    assert sink.last["reason"] == "stop"


def test_an_endless_repetition_stops(engine: Engine) -> None:
    (sink,) = run(engine, ask("hello", tokens=200, temperature=0.0, repeat_penalty=0.01, repeat_last_n=-1))

    assert (sink.last["reason"], sink.last["tokens"]) == ("stop", 31)


def test_a_seed_makes_chance_repeatable(engine: Engine) -> None:
    texts = [sink.text for seed in (1, 1, 2) for sink in run(engine, ask("hello", temperature=1.5, seed=seed))]

    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_answers_differ(engine: Engine) -> None:
    one, other = run(engine, *[ask("hello", temperature=1.5)] * 2)

    assert one.text != other.text


def test_penalties_look_back_no_further_than_the_window(engine: Engine) -> None:
    (sink,) = run(engine, ask("hello", repeat_penalty=1.3, repeat_last_n=2**31 - 1))

    assert sink.last["tokens"] == 24


def test_long_prompts_are_cut_in_the_middle(engine: Engine) -> None:
    (sink,) = run(engine, ask("0123456789" * 40, tokens=1, num_keep=10))

    assert sink.last["truncated"]
    assert sink.last["prompt_tokens"] == CONTEXT - (CONTEXT - 10) // 2
    kept = engine._model.vocabulary.text(sink.last["context"])
    assert kept.startswith("0123456789")
    assert kept[:-1].endswith("0123456789")


@pytest.mark.parametrize("refusing", [{"truncate": False}, {"shift": False}])
def test_long_prompts_are_refused_where_they_may_not_be_cut(engine: Engine, refusing: dict[str, bool]) -> None:
    with pytest.raises(PromptTooLong, match="the prompt is longer than the context length currently available"):
        start(engine, ask("x" * 300, **refusing), Recorder())


@pytest.mark.parametrize("token", [-1, 10**6, "1", True])
def test_token_ids_that_are_none_are_refused(engine: Engine, token: Any) -> None:
    with pytest.raises(InputInvalid):
        start(engine, GenerateRequest("x", SampleOptions(), context=(token,)), Recorder())


@pytest.mark.parametrize("prompt", ["hello", "<|endoftext|>hello", ""])
def test_the_begin_token_is_there_once(load: Callable[..., Engine], prompt: str) -> None:
    engine = load(add_bos=True)
    begin = engine._model.vocabulary.begin

    (sink,) = run(engine, ask(prompt, tokens=1))

    prompt_tokens = sink.last["context"][: sink.last["prompt_tokens"]]
    assert prompt_tokens[0] == begin
    assert prompt_tokens.count(begin) == 1


def test_cancelling_frees_the_slot_also_while_the_prompt_is_read(load: Callable[..., Engine]) -> None:
    engine = load({"parallel": 1, "context_length": 2048, "num_batch": 64})
    reading = start(engine, ask("x " * 900, tokens=1), Recorder())
    follower = Recorder()
    start(engine, ask("hello", tokens=3), follower)
    engine.step()

    engine.cancel(reading)
    finish(engine)

    assert follower.last["tokens"] == 3
    assert follower.text == run(load(), ask("hello", tokens=3))[0].text


def test_a_long_prompt_does_not_stall_answers(load: Callable[..., Engine]) -> None:
    engine = load({"parallel": 2, "context_length": 2048, "num_batch": 128})
    answering, reading = Recorder(), Recorder()
    start(engine, ask("hello", tokens=100), answering)
    engine.step()
    start(engine, ask("x" * 1500, tokens=1), reading)
    before = len(answering.events)
    for _ in range(8):
        engine.step()

    assert len(answering.events) == before + 8
    assert not reading.events


def test_a_reader_that_is_behind_rests_and_others_go_on(load: Callable[..., Engine]) -> None:
    engine = load()
    slow, quick = Recorder(), Recorder()
    start(engine, ask("hello"), slow)
    start(engine, ask("world"), quick)
    engine.step()
    slow.is_congested = True
    for _ in range(40):
        engine.step()

    assert quick.last["event"] == "done"
    assert len(slow.events) == 1
    assert engine.step() is False
    slow.is_congested = False
    finish(engine)
    assert slow.text == run(load(), ask("hello"))[0].text


def test_logprobs_go_with_their_text(engine: Engine) -> None:
    (plain,) = run(engine, ask("hello", tokens=8))
    stop = plain.text[4:6]
    options = SampleOptions(temperature=0, num_predict=8, stop=(stop,))
    (sink,) = run(engine, GenerateRequest("hello", options, top_logprobs=3))

    entries = [entry for event in sink.events[:-1] for entry in event["logprobs"]]
    assert "".join(entry["token"] for entry in entries).startswith(sink.text)
    for entry in entries:
        assert entry["bytes"] == list(entry["token"].encode())
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["token"] == entry["token"]  # greedy takes the likeliest
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0


def test_logprobs_without_alternatives(engine: Engine) -> None:
    (sink,) = run(engine, GenerateRequest("hello", SampleOptions(num_predict=2), top_logprobs=0))

    assert all("top_logprobs" not in entry for event in sink.events[:-1] for entry in event["logprobs"])


def embed(engine: Engine, inputs: list[str], *, truncate: bool = True) -> tuple[np.ndarray[Any, Any], int]:
    sink = Recorder()
    engine.submit(engine.embed_job(inputs, sink, truncate=truncate))
    finish(engine)
    rows: list[np.ndarray[Any, Any]] = []
    for event in sink.events[:-1]:
        numbers = array("f", base64.b64decode(event["data"]))
        rows += list(np.array(numbers).reshape(-1, event["width"]))
    assert sink.last["event"] == "done", sink.last
    return np.array(rows), int(sink.last["prompt_tokens"])


MODELS = [
    pytest.param({}, id="generates"),
    pytest.param({"pooling": 3}, id="last token"),
    pytest.param({"pooling": 2}, id="first token"),
    pytest.param({"arch": "bert"}, id="bert, mean"),
    pytest.param({"arch": "bert", "pooling": 2}, id="bert, first token"),
]


@pytest.mark.parametrize("model", MODELS)
def test_inputs_packed_together_have_the_vectors_of_each_alone(
    load: Callable[..., Engine], model: dict[str, Any]
) -> None:
    engine = load({"is_embedding": bool(model)}, **model)
    inputs = ["hello", "world" * 9, "", "the " * 40, "hello"]

    together, prompt_tokens = embed(engine, inputs)
    alone = np.concatenate([embed(engine, [text])[0] for text in inputs])

    assert together == pytest.approx(alone, abs=2e-2)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert together[0] == pytest.approx(together[4], abs=2e-2)
    assert prompt_tokens == sum(embed(engine, [text])[1] for text in inputs)


@pytest.mark.parametrize("pooling", [1, 2, 3])
def test_a_long_input_has_the_same_vector_however_it_is_sliced(load: Callable[..., Engine], pooling: int) -> None:
    settings = {"is_embedding": True, "context_length": 2048}
    inputs = ["a", "hello the world " * 400, "b"]

    sliced, _ = embed(load(settings, pooling=pooling), inputs)
    whole, _ = embed(load({**settings, "num_batch": 2048}, pooling=pooling), inputs)

    assert len(sliced) == 3
    assert sliced == pytest.approx(whole, abs=2e-2)


def test_many_inputs_take_several_steps_in_order(load: Callable[..., Engine]) -> None:
    engine = load({"is_embedding": True}, arch="bert")
    inputs = [f"text number {number} " * 8 for number in range(60)]

    vectors, _ = embed(engine, inputs)

    assert len(vectors) == 60
    assert vectors[37] == pytest.approx(embed(engine, [inputs[37]])[0][0], abs=2e-2)


def test_two_embed_jobs_and_a_stream_do_not_disturb_each_other(load: Callable[..., Engine]) -> None:
    engine = load({"context_length": 2048})
    long = "hello the world " * 400
    alone, _ = embed(engine, [long])
    one, other, stream = Recorder(), Recorder(), Recorder()
    engine.submit(engine.embed_job([long, "x"], one, truncate=True))
    engine.submit(engine.embed_job(["y", long], other, truncate=True))
    start(engine, ask("hello"), stream)
    finish(engine)

    first = np.frombuffer(base64.b64decode(one.events[0]["data"]), "<f4")
    assert first == pytest.approx(alone[0], abs=2e-2)
    assert len(first) == 64
    assert (one.last["event"], other.last["event"]) == ("done", "done")
    assert stream.text == run(load({"context_length": 2048}), ask("hello"))[0].text


def test_inputs_too_long_are_cut_or_refused(load: Callable[..., Engine]) -> None:
    engine = load({"is_embedding": True, "context_length": 32}, arch="bert")

    _, prompt_tokens = embed(engine, ["x" * 100])

    assert prompt_tokens == 32
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        engine.submit(engine.embed_job(["x" * 100], Recorder(), truncate=False))


def test_an_embedding_never_exceeds_what_the_model_was_trained_for(load: Callable[..., Engine]) -> None:
    engine = load({"is_embedding": True, "context_length": 4096}, arch="bert", n_ctx_train=64)

    assert embed(engine, ["x" * 500])[1] == 64


def test_a_file_that_is_no_model_is_refused_with_a_reason(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "garbage.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)

    with pytest.raises(LoadFailed, match=r"\w+"):
        Model(RunnerSettings(str(path), "", 64), log, lambda _: None)
