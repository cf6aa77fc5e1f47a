"""Runners that have a model's vocabulary alone: what they load, whom they make room for, what they refuse."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from demo import smollm2
from runtime.errors import InputInvalid, ModelTooLarge, RequestCancelled, RuntimeFailure
from runtime.gguf import read_header
from runtime.messages import ModelSpec
from runtime.runner import words
from runtime.runner.library import Log, Model, Vocabulary
from runtime.runner.settings import RunnerSettings
from runtime.vocabulary import vocabulary_memory
from tests.supervised import Supervised, answer, eventually, is_alive, request, spec_of
from tests.tiny_gguf import write_tiny_gguf


def vocabulary_of(spec: ModelSpec) -> ModelSpec:
    """As `runtime.vocabulary` makes it of a stored model."""
    path = Path(spec.path)
    with path.open("rb") as file:
        need = vocabulary_memory(read_header(file, path.stat().st_size))
    return replace(spec, identity=f"vocabulary of {spec.identity}", vocabulary_of=spec.identity, memory=need)


def runners(running: Supervised) -> list[int]:
    """The processes that the supervisor has started."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [pid for pid in map(int, children.read_text(encoding="ascii").split()) if is_alive(pid)]


def anonymous_bytes(pid: int) -> int:
    """What a process holds that is no file."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def test_no_weights_are_loaded(start: Callable[..., Supervised]) -> None:
    running, path = start(), smollm2.fetch()
    spec = vocabulary_of(spec_of(path))

    with running.client.lease(spec) as lease:
        tokens = lease.tokenize("The ship sails at dawn.")
        (pid,) = runners(running)
        mapped = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        held = anonymous_bytes(pid)

    assert 3 < len(tokens) < 10
    assert path.name not in mapped
    assert held < path.stat().st_size // 2
    assert spec.memory.compute_bytes < path.stat().st_size // 3


def test_it_is_no_loaded_model(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start()

    with running.client.lease(vocabulary_of(spec_of(tiny))):
        assert len(runners(running)) == 1
        assert running.client.ps() == []


def test_a_model_that_is_loaded_answers_itself(start: Callable[..., Supervised], tiny: Path) -> None:
    running, spec = start(), spec_of(tiny)
    running.client.lease(spec).close()
    (before,) = running.client.ps()

    with running.client.lease(vocabulary_of(spec), keep_alive_s=0) as lease:
        assert lease.detokenize(lease.tokenize("hello")) == "hello"

    (after,) = running.client.ps()
    assert runners(running) == [before.pid]
    assert after.expires_at >= before.expires_at


def test_a_model_goes_when_its_time_is_over_though_its_words_were_asked_for(
    start: Callable[..., Supervised], tiny: Path
) -> None:
    running, spec = start(), spec_of(tiny)
    running.client.lease(spec, keep_alive_s=0.3).close()
    running.client.lease(vocabulary_of(spec)).close()

    assert eventually(lambda: not runners(running))


def test_it_takes_no_place_of_a_model(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(max_loaded=1)
    one, other = (spec_of(tiny, identity=name, name=name) for name in ("one", "other"))

    with running.client.lease(one) as busy:
        with running.client.lease(vocabulary_of(other)) as lease:
            assert lease.tokenize("hello")
            assert len(runners(running)) == 2
        assert answer(busy, request("hello", tokens=2))[1].tokens == 2
    assert [loaded.name for loaded in running.client.ps()] == ["one"]


def test_of_many_the_oldest_goes(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start()
    for number in range(6):
        with running.client.lease(vocabulary_of(spec_of(tiny, identity=f"m{number}"))) as lease:
            assert lease.tokenize("hello")

    assert len(runners(running)) == 4


def test_it_is_kept_for_as_long_as_it_is_asked_to_be(start: Callable[..., Supervised], tiny: Path) -> None:
    running, spec = start(), vocabulary_of(spec_of(tiny))
    running.client.lease(spec).close()
    (kept,) = runners(running)
    running.client.lease(spec).close()
    assert runners(running) == [kept]

    running.client.lease(spec, keep_alive_s=0).close()

    assert eventually(lambda: not runners(running))


def test_one_that_is_too_large_is_refused_with_the_figures(start: Callable[..., Supervised], tiny: Path) -> None:
    spec = vocabulary_of(spec_of(tiny))
    large = replace(spec, memory=replace(spec.memory, compute_bytes=3 * 2**30))

    with pytest.raises(ModelTooLarge, match=r"more memory \(3\.0 GiB\) than the budget allows \(0\.2 GiB\)"):
        start(memory_budget_bytes=2**30).client.lease(large)


def test_what_takes_weights_is_refused(start: Callable[..., Supervised], tiny: Path) -> None:
    with start().client.lease(vocabulary_of(spec_of(tiny))) as lease:
        for ask in (
            lambda: list(lease.generate(request("hello"))),
            lambda: lease.embed(["hello"]),
            lambda: lease.rerank("hello", ["world"]),
        ):
            with pytest.raises(RuntimeFailure, match=r"^only the vocabulary of the model is loaded$"):
                ask()
        assert lease.detokenize(lease.tokenize("hello")) == "hello"


def test_a_long_text_keeps_nobody_waiting(start: Callable[..., Supervised], tiny: Path) -> None:
    with start().client.lease(vocabulary_of(spec_of(tiny))) as lease, ThreadPoolExecutor(1) as pool:
        long = pool.submit(lease.tokenize, "hello " * 500_000)
        for _ in range(5):
            assert lease.detokenize(lease.tokenize("hello")) == "hello"
        was_done = long.done()

        assert len(long.result()) == 1_000_000
    assert not was_done


def test_who_gives_up_a_long_text_is_let_go(start: Callable[..., Supervised], tiny: Path) -> None:
    with start().client.lease(vocabulary_of(spec_of(tiny))) as lease:
        gone_at = time.monotonic() + 0.2
        with pytest.raises(RequestCancelled):
            lease.tokenize("hello " * 1_300_000, is_cancelled=lambda: time.monotonic() > gone_at)
        assert time.monotonic() - gone_at < 1.0

        assert lease.detokenize(lease.tokenize("hello")) == "hello"


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


def _vocabulary(path: Path, log: Log) -> Vocabulary:
    return Model(RunnerSettings(str(path), "", 0, vocabulary_only=True), log, lambda _: None).vocabulary


def test_text_without_end_is_refused(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = _vocabulary(write_tiny_gguf(tmp_path / "tiny.gguf"), log)
    tokens = vocabulary.tokenize("hello world", add_special=False)
    monkeypatch.setattr(words, "_MOST_TEXT_BYTES", len("hello world"))
    assert words.answer("detokenize", {"tokens": tokens}, vocabulary)["text"] == "hello world"

    for op in ("detokenize", "pieces"):
        with pytest.raises(InputInvalid, match=r"^the text of the tokens is larger than 11 bytes$"):
            words.answer(op, {"tokens": [*tokens, tokens[0]]}, vocabulary)


@pytest.mark.parametrize("op", ["tokenize", "count", "detokenize", "pieces"])
def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path, log: Log, op: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "none.gguf", "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(100)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    vocabulary = _vocabulary(tmp_path / "none.gguf", log)

    with pytest.raises(InputInvalid, match=r"^the model has no vocabulary$"):
        words.answer(op, {"text": "x", "add_special": False, "tokens": [1]}, vocabulary)
