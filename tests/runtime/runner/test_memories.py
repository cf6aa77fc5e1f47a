"""What is left in the cache is used for prompts that begin alike, and never changes an answer."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from runtime.messages import GenerateRequest
from runtime.options import SampleOptions
from runtime.runner import library
from runtime.runner.engine import Engine
from runtime.runner.library import Log, Model
from runtime.runner.sequence import Sequence
from runtime.runner.settings import RunnerSettings
from tests.answers import Recorder, finish, start
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_memories import KINDS, write_tiny_memory

STEP = 64
TEXT = "hello the world in " * 100  # 600 tokens
HALF = "hello the world in " * 50
Load = Callable[[str], Engine]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder, log = tmp_path_factory.mktemp("models"), Log()

    def load(kind: str) -> Engine:
        path = folder / f"{kind}.gguf"
        if not path.exists():
            write_tiny_gguf(path) if kind == "llama" else write_tiny_memory(path, kind)
        told = RunnerSettings(str(path), "", context_length=2048, parallel=3, num_batch=STEP, num_thread=1)
        return Engine(Model(told, log, lambda _: None), told)

    return load


def ask(prompt: str, *, caller: str = "", context: tuple[int, ...] = (), tokens: int = 12) -> GenerateRequest:
    options = SampleOptions(temperature=0, num_predict=tokens)
    return GenerateRequest(prompt, options, context=context, want_tokens=True, caller=caller)


def whole(engine: Engine, request: GenerateRequest) -> Recorder:
    sink = Recorder()
    start(engine, request, sink)
    finish(engine)
    return sink


def begun(engine: Engine, request: GenerateRequest, sink: Recorder | None = None) -> tuple[Sequence, int]:
    """A request after its first step, and how many tokens of its prompt were there before."""
    sequence = start(engine, request, sink or Recorder())
    engine.step()
    return sequence, max(sequence.read - STEP, 0)


@pytest.mark.parametrize("kind", ["llama", *KINDS])
def test_answers_are_what_they_are_without_a_cache(load: Load, kind: str) -> None:
    engine = load(kind)
    first = whole(engine, ask(TEXT))
    requests = [
        ask(TEXT + "tail"),
        ask(" and more", context=tuple(first.last["context"])),
        ask(HALF + "another tail"),
        ask(TEXT),
        ask("hello"),
    ]

    warm = [whole(engine, request).text for request in requests]

    assert warm == [whole(load(kind), request).text for request in requests]


@pytest.mark.parametrize("words", [4, 20, 30])
def test_prompts_of_some_tiles_begin_again_between_tiles(load: Load, words: int) -> None:
    """What follows an answer was computed one by one, and is read anew where that rounds otherwise."""
    engine = load("llama")
    first = whole(engine, ask("hello the world in " * words, tokens=50))
    context = tuple(first.last["context"])

    warm = whole(engine, ask("0" * 20, context=context))

    assert warm.text == whole(load("llama"), ask("0" * 20, context=context)).text


@pytest.mark.parametrize("kind", ["llama", *KINDS])
def test_a_conversation_that_goes_on_is_not_read_again(load: Load, kind: str) -> None:
    engine = load(kind)
    first = whole(engine, ask(TEXT))
    context = tuple(first.last["context"])

    _, found = begun(engine, ask(TEXT, context=context))

    assert found >= len(context) - 1 - STEP  # the last token of an answer is not in the cache


@pytest.mark.parametrize(("kind", "is_found"), [("llama", True), ("gemma3", False), ("mamba", False), ("jamba", False)])
def test_going_back_is_for_memories_that_can(load: Load, kind: str, is_found: bool) -> None:
    engine = load(kind)
    whole(engine, ask(TEXT * 3))

    _, found = begun(engine, ask(HALF + "0" * 900))

    assert (found > 0) == is_found


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_what_a_busy_lane_has_read_is_shared(load: Load, kind: str) -> None:
    engine = load(kind)
    busy, follower = Recorder(), Recorder()
    start(engine, ask(TEXT, tokens=200), busy)
    while not busy.events:
        engine.step()

    _, found = begun(engine, ask(TEXT + "tail"), follower)
    finish(engine)

    assert found > 500
    assert follower.text == whole(load(kind), ask(TEXT + "tail")).text
    assert busy.text == whole(load(kind), ask(TEXT, tokens=200)).text


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba"])
def test_whoever_comes_and_goes_every_answer_is_as_alone(load: Load, kind: str) -> None:
    """Lanes are copied, moved together and cut all the time; below 256 tokens that changes nothing."""
    engine = load(kind)
    chance = random.Random(3)
    said = ["in the world", "hello", "hello the world in " * 15, "hello the world in " * 30, "a"]
    requests = [
        ask(
            chance.choice(said) + " in" * chance.randint(1, 40), caller=chance.choice("ab"), tokens=chance.randint(1, 9)
        )
        for _ in range(30)
    ]
    sinks = [Recorder() for _ in requests]
    coming = list(zip(requests, sinks, strict=True))
    while coming or engine.has_work:
        if coming and chance.random() < 0.3:
            start(engine, *coming.pop())
        engine.step()

    assert [sink.text for sink in sinks] == [whole(load(kind), request).text for request in requests]


def test_nobody_gains_from_what_another_asked(load: Load) -> None:
    engine = load("llama")
    whole(engine, ask(TEXT, caller="one"))

    _, others = begun(engine, ask(TEXT + "x", caller="other"))
    _, own = begun(engine, ask(TEXT + "x", caller="one"))

    assert (others, own > 500) == (0, True)


def test_callers_take_turns_at_the_slots(load: Load) -> None:
    engine = load("llama")
    greedy = [Recorder() for _ in range(9)]
    for sink in greedy:
        start(engine, ask("hello", caller="greedy", tokens=5), sink)
    modest = Recorder()
    start(engine, ask("hello", caller="modest", tokens=5), modest)

    while not modest.events or modest.last["event"] != "done":
        engine.step()

    assert sum(bool(sink.events) and sink.last["event"] == "done" for sink in greedy) <= 5


@pytest.mark.parametrize("kind", ["llama", *KINDS])
def test_a_prompt_nobody_waits_for_is_given_up_in_the_middle_of_a_step(
    load: Load, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(library, "_LOOK_EVERY_S", -1.0)  # look between any two operations
    engine = load(kind)
    leaving, other = Recorder(), Recorder()
    sequence, _ = begun(engine, ask(TEXT), leaving)
    read = sequence.read
    start(engine, ask("hello"), other)
    leaving.is_gone = True

    engine.step()

    assert (sequence.slot, sequence.read, leaving.events) == (None, read, [])
    finish(engine)
    assert other.text == whole(load(kind), ask("hello")).text
    assert whole(engine, ask(TEXT)).text == whole(load(kind), ask(TEXT)).text


def test_answers_nobody_reads_are_given_up_in_the_middle_of_a_step(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_LOOK_EVERY_S", -1.0)
    engine = load("llama")
    leaving, staying = Recorder(), Recorder()
    for sink in (leaving, staying):
        start(engine, ask("hello", tokens=200), sink)
    engine.step()
    engine._is_slow = leaving.is_gone = True

    engine.step()  # one of the two is still there
    engine._is_slow = staying.is_gone = True
    engine.step()

    assert not engine.has_work
    assert whole(engine, ask("hello")).text == whole(load("llama"), ask("hello")).text
