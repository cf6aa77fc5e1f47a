"""Images among the tokens of the cache: whole or not at all, their own and nobody else's."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from runtime.messages import GenerateRequest
from runtime.options import SampleOptions
from runtime.runner import library
from runtime.runner.engine import Engine
from runtime.runner.library import Log, Model
from runtime.runner.settings import RunnerSettings
from tests.answers import Recorder, finish, start
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import image_bytes, write_tiny_mrope_gguf, write_tiny_projector

KINDS = ["mlp", "gemma3", "qwen2vl"]  # causal; cells that see each other; positions of two dimensions
RED, BLUE = (base64.b64encode(image_bytes(color, (56, 56))).decode() for color in ((255, 0, 0), (0, 0, 255)))
BEFORE, AFTER = "hello the world in " * 60, " what is it" * 30
Load = Callable[[str], Engine]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder, log = tmp_path_factory.mktemp("models"), Log()

    def load(kind: str) -> Engine:
        path, projector = folder / f"{kind}.gguf", folder / f"{kind}-projector.gguf"
        if not path.exists():
            write_tiny_mrope_gguf(path) if kind == "qwen2vl" else write_tiny_gguf(path)
            write_tiny_projector(projector, kind=kind)
        told = RunnerSettings(
            str(path), "", context_length=2048, parallel=3, num_batch=128, num_thread=1, projector=str(projector)
        )
        return Engine(Model(told, log, lambda _: None), told)

    return load


def ask(*images: str, text: str = BEFORE + "[img-0]" + AFTER, tokens: int = 8) -> GenerateRequest:
    return GenerateRequest(text, SampleOptions(temperature=0, num_predict=tokens), images=images, want_tokens=True)


def whole(engine: Engine, request: GenerateRequest) -> Recorder:
    sink = Recorder()
    start(engine, request, sink)
    finish(engine)
    assert sink.last["event"] == "done", sink.last
    return sink


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_what_they_are_without_a_cache(load: Load, kind: str) -> None:
    engine = load(kind)
    requests = [
        ask(RED),
        ask(BLUE),
        ask(RED, text=BEFORE + "[img-0]" + AFTER + " and more"),
        ask(RED, BLUE, text=BEFORE + "[img-0] and [img-1]" + AFTER),
        ask(text=BEFORE + AFTER),
        ask(RED),
    ]

    warm = [whole(engine, request).text for request in requests]

    assert warm == [whole(load(kind), request).text for request in requests]
    assert warm[4] not in warm[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_seen_before_is_not_put_in_again(load: Load, kind: str) -> None:
    engine = load(kind)
    whole(engine, ask(RED))
    same, other = (engine.prepare(ask(image), Recorder()) for image in (RED, BLUE))

    for sequence in (same, other):
        engine.submit(sequence)
    engine._admit(engine._context)  # type: ignore[arg-type]

    (span,) = same.prompt.images
    assert same.read >= span.end
    assert other.read == span.start
    finish(engine)


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_lane_with_an_image_is_copied(load: Load, kind: str) -> None:
    engine = load(kind)
    busy, follower = Recorder(), Recorder()
    start(engine, ask(RED, tokens=60), busy)
    while not busy.events:
        engine.step()
    start(engine, ask(RED, text=BEFORE + "[img-0]" + AFTER + "tail"), follower)
    finish(engine)

    assert follower.text == whole(load(kind), ask(RED, text=BEFORE + "[img-0]" + AFTER + "tail")).text
    assert busy.text == whole(load(kind), ask(RED, tokens=60)).text


@pytest.mark.parametrize("kind", KINDS)
def test_who_leaves_while_an_image_is_put_in_leaves_nothing(
    load: Load, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(library, "_LOOK_EVERY_S", -1.0)
    engine = load(kind)
    leaving = Recorder()
    sequence = start(engine, ask(RED, text="[img-0]" + AFTER), leaving)
    leaving.is_gone = True  # after the image was seen

    finish(engine)

    assert (sequence.slot, leaving.events) == (None, [])
    assert whole(engine, ask(RED)).text == whole(load(kind), ask(RED)).text
