"""LoRA adapters: from a layer of a manifest to answers that are not the base model's."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.gguf import Header, read_header
from runtime.memory import Setup, estimate_memory, sizes_of
from runtime.messages import GenerateRequest, ModelSpec
from runtime.model import Model, load_model
from runtime.options import LoadOptions, SampleOptions
from runtime.runner.engine import Engine
from runtime.runner.library import Context, Log
from runtime.runner.library import Model as Loaded
from runtime.runner.settings import RunnerSettings
from storage.reference import ModelName
from storage.store import Store
from tests.answers import Recorder, ask, finish, run
from tests.embedded import Vectors, vectors
from tests.gguf_variants import VARIANTS, write_variant
from tests.stored_models import OLLAMA, model_spec, open_store, push_layers
from tests.supervised import Supervised, answer, request, supervised
from tests.tiny_gguf import EMBEDDING, write_tiny_gguf
from tests.tiny_lora import ALPHA, RANK, deltas, tiny_pairs, write_tiny_lora
from tests.tiny_projector import image_bytes, write_tiny_projector

PROMPT = "hello world, the ship"
Load = Callable[..., Engine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return write_tiny_gguf(folder / "base.gguf", is_float=True)


@pytest.fixture(scope="module")
def lora(folder: Path) -> Path:
    return write_tiny_lora(folder / "lora.gguf")


@pytest.fixture(scope="module")
def merged(folder: Path) -> Path:
    """The base model with the adapter's changes in its own weights."""
    return write_tiny_gguf(folder / "merged.gguf", is_float=True, added=deltas(tiny_pairs()))


@pytest.fixture(scope="module")
def load() -> Load:
    log = Log()

    def load(path: Path, *adapters: Path, **told: Any) -> Engine:
        settings = RunnerSettings(
            str(path), "", 512, parallel=2, num_thread=1, adapters=tuple(map(str, adapters)), **told
        )
        return Engine(Loaded(settings, log, lambda _: None), settings)

    return load


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


def greedy(engine: Engine, prompt: str = PROMPT, *, images: tuple[str, ...] = ()) -> Recorder:
    asked = GenerateRequest(prompt, SampleOptions(temperature=0, num_predict=32), top_logprobs=5, images=images)
    (told,) = run(engine, asked)
    return told


def test_an_adapter_answers_as_if_it_were_merged_into_the_weights(
    load: Load, base: Path, lora: Path, merged: Path
) -> None:
    adapted = greedy(load(base, lora))

    wanted = greedy(load(merged))
    assert adapted.text == wanted.text != greedy(load(base)).text
    got, expected = ([entry["logprob"] for entry in each.logprobs] for each in (adapted, wanted))
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_several_adapters_add_up(load: Load, base: Path, lora: Path, folder: Path) -> None:
    second = write_tiny_lora(folder / "second.gguf", tiny_pairs(1), alpha=0.0)
    first_delta, second_delta = deltas(tiny_pairs()), deltas(tiny_pairs(1), alpha=0.0)
    sum_of_both = {name: first_delta[name] + second_delta[name] for name in first_delta}
    both = write_tiny_gguf(folder / "both.gguf", is_float=True, added=sum_of_both)

    adapted = greedy(load(base, lora, second))

    assert adapted.text == greedy(load(both)).text != greedy(load(base, lora)).text


def test_a_prompt_seen_before_is_answered_with_the_adapter_too(load: Load, base: Path, lora: Path) -> None:
    engine = load(base, lora)

    first, again = (greedy(engine, PROMPT * 20) for _ in range(2))

    assert first.text == again.text
    assert again.last["prompt_tokens"] == first.last["prompt_tokens"]


def test_vectors_are_those_of_the_merged_weights(load: Load, base: Path, lora: Path, merged: Path) -> None:
    def vector(engine: Engine) -> Vectors:
        sink = Recorder()
        engine.submit(engine.embed_job([PROMPT], sink, truncate=True))
        finish(engine)
        return vectors(sink)

    adapted, wanted, plain = (vector(load(base, lora)), vector(load(merged)), vector(load(base)))

    np.testing.assert_allclose(adapted, wanted, atol=1e-4)
    assert abs(adapted - plain).max() > 0.01


def test_images_are_seen_by_the_merged_weights(load: Load, base: Path, lora: Path, merged: Path, folder: Path) -> None:
    projector = str(write_tiny_projector(folder / "projector.gguf"))
    red = base64.b64encode(image_bytes((255, 0, 0), (56, 56))).decode()

    adapted = greedy(load(base, lora, projector=projector), "see [img-0] this", images=(red,))

    wanted = greedy(load(merged, projector=projector), "see [img-0] this", images=(red,))
    assert adapted.text == wanted.text
    assert adapted.text != greedy(load(base, projector=projector), "see [img-0] this", images=(red,)).text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with supervised(tmp_path_factory.mktemp("run")) as started:
        yield started


def pushed(store: Store, name: str, base: Path, *adapters: bytes) -> Model:
    layers = [(OLLAMA + "model", base.read_bytes()), *((OLLAMA + "adapter", each) for each in adapters)]
    push_layers(store, name, layers)
    return load_model(store, ModelName.parse(name))


def spec_of(store: Store, name: str, base: Path, *adapters: bytes) -> ModelSpec:
    return model_spec(store, pushed(store, name, base, *adapters), LoadOptions(num_ctx=512))


def test_with_and_without_an_adapter_are_two_runners(store: Store, running: Supervised, base: Path, lora: Path) -> None:
    specs = [spec_of(store, "plain", base), spec_of(store, "adapted", base, lora.read_bytes())]
    texts = []
    for spec in specs:
        lease = running.client.lease(spec, 60.0)
        texts.append(answer(lease, request(PROMPT))[0])
        lease.close()

    loaded = {each.name: each.pid for each in running.client.ps()}

    assert texts[0] != texts[1]
    assert loaded["plain:latest"] != loaded["adapted:latest"]


def test_what_an_adapter_holds_is_counted(store: Store, base: Path, lora: Path) -> None:
    plain, adapted = spec_of(store, "plain", base), spec_of(store, "adapted", base, lora.read_bytes())

    held = sum(down.nbytes + up.nbytes for down, up in tiny_pairs().values())

    assert adapted.memory.weights_bytes == plain.memory.weights_bytes + held
    assert sum(layer[0] for layer in adapted.memory.layers) == sum(layer[0] for layer in plain.memory.layers) + held


def test_the_estimate_is_near_what_llama_cpp_takes(folder: Path) -> None:
    wide = write_variant(folder / "wide.gguf", VARIANTS["wide layers"])
    rank, base = 64, header_of(wide)
    matrices = [tensor for tensor in base.tensors if tensor.name.startswith("blk.") and len(tensor.dims) == 2]
    downs = {f"{each.name}.lora_a": half(rank, each.dims[0]) for each in matrices}
    ups = {f"{each.name}.lora_b": half(each.dims[1], rank) for each in matrices}
    adapter = write_tiny_lora(folder / "wide-lora.gguf", tensors=downs | ups)
    settings = RunnerSettings(str(wide), "", 1024, 2, num_gpu=0, adapters=(str(adapter),))
    log = Log()
    model = Loaded(settings, log, lambda _: None)
    context = Context(model, cells=2048, sequences=2, step_tokens=512, threads=1, settings=settings)
    measured = log.host_bytes
    context.close()

    need = estimate_memory(base, adapters=[header_of(adapter)])

    assert sizes_of(need, Setup(1024, 2, outputs=2)).total == pytest.approx(measured, rel=0.1)
    assert need.weights_bytes - estimate_memory(base).weights_bytes > measured * 0.1


def test_the_order_of_adapters_is_kept(store: Store, base: Path, lora: Path, folder: Path) -> None:
    other = write_tiny_lora(folder / "other.gguf", tiny_pairs(2)).read_bytes()

    spec = spec_of(store, "m", base, other, lora.read_bytes())

    assert [Path(path).read_bytes() for path in spec.adapters] == [other, lora.read_bytes()]


QUERY, TABLE = "blk.0.attn_q.weight", "token_embd.weight"
TOKENS = 280


def half(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def halves(name: str, down: tuple[int, ...], up: tuple[int, ...]) -> dict[str, Any]:
    return {"tensors": {f"{name}.lora_a": half(*down), f"{name}.lora_b": half(*up)}}


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "no word that it is one": ({"metadata": {"general.type": "model"}}, "no word that it is one"),
    "of another kind": ({"metadata": {"adapter.type": "control_vector"}}, "another type than lora"),
    "of another architecture": ({"arch": "gemma3"}, "another architecture"),
    "an alpha without end": ({"alpha": float("inf")}, "alpha that is no number"),
    "half a change": ({"tensors": {f"{QUERY}.lora_a": half(RANK, EMBEDDING)}}, "one half only"),
    "a tensor of another kind": ({"tensors": {QUERY: half(RANK, EMBEDDING)}}, "no half of a change"),
    "no tensors": ({"tensors": {}}, "no changes"),
    "only norms": ({"tensors": {"blk.0.attn_norm.weight": half(EMBEDDING)}}, "no changes"),
    "a weight that is not there": (halves("blk.9.attn_q.weight", (RANK, 64), (64, RANK)), "which its model has not"),
    "inputs of another length": (halves(QUERY, (RANK, 32), (EMBEDDING, RANK)), "another shape"),
    "outputs of another length": (halves(QUERY, (RANK, EMBEDDING), (32, RANK)), "another shape"),
    "ranks that do not meet": (halves(QUERY, (RANK, EMBEDDING), (EMBEDDING, RANK + 1)), "another shape"),
    "a third side": (halves(QUERY, (2, RANK, EMBEDDING), (3, EMBEDDING, RANK)), "another shape"),
    "a change of a norm": (halves("blk.0.attn_norm.weight", (RANK, EMBEDDING), (1, RANK)), "which is no matrix"),
    "numbers of another kind": (
        {"tensors": {f"{QUERY}.lora_a": np.zeros((RANK, EMBEDDING), np.int32), f"{QUERY}.lora_b": half(64, RANK)}},
        "of type I32",
    ),
    "a table with ranks that do not meet": (halves(TABLE, (TOKENS, RANK), (EMBEDDING, 2 * RANK)), "another shape"),
    "a table of another length": (halves(TABLE, (TOKENS + 1, RANK), (EMBEDDING, RANK)), "another shape"),
}


@pytest.mark.parametrize(("told", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_does_not_fit_is_refused_before_llama_cpp_sees_it(
    store: Store, base: Path, tmp_path: Path, told: dict[str, Any], words: str
) -> None:
    adapter = write_tiny_lora(tmp_path / "hostile.gguf", **told).read_bytes()

    with pytest.raises(GGUFInvalid, match=words) as refused:
        spec_of(store, "m", base, adapter)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damaged", [b"", b"GGUF", b"nothing of the kind"], ids=["empty", "cut", "no header"])
def test_damaged_adapters_are_named(store: Store, base: Path, damaged: bytes) -> None:
    with pytest.raises(GGUFInvalid, match="the adapter is not"):
        spec_of(store, "m", base, damaged)


def test_a_cut_adapter_is_refused(store: Store, base: Path, lora: Path) -> None:
    with pytest.raises(GGUFInvalid, match="the adapter is not a whole GGUF file"):
        spec_of(store, "m", base, lora.read_bytes()[:-200])


def test_more_adapters_than_can_be_are_refused(store: Store, base: Path, lora: Path) -> None:
    with pytest.raises(ModelUnusable, match="17 adapters"):
        spec_of(store, "m", base, *[lora.read_bytes()] * 17)


def test_a_change_of_the_table_of_tokens_is_made(load: Load, base: Path, folder: Path, store: Store) -> None:
    rng = np.random.default_rng(5)
    down, up = (rng.standard_normal(shape).astype(np.float32) * 0.2 for shape in ((TOKENS, RANK), (EMBEDDING, RANK)))
    tensors = {f"{TABLE}.lora_a": down, f"{TABLE}.lora_b": up}
    adapter = write_tiny_lora(folder / "table.gguf", tensors=tensors)
    added = {TABLE: (down @ up.T * (ALPHA / RANK)).astype(np.float32)}
    wanted = greedy(load(write_tiny_gguf(folder / "table-merged.gguf", is_float=True, added=added)))

    spec = spec_of(store, "m", base, adapter.read_bytes())

    assert greedy(load(Path(spec.path), *map(Path, spec.adapters))).text == wanted.text


def test_a_table_that_is_the_output_too_is_not_changed(store: Store, tmp_path: Path) -> None:
    tied = write_tiny_gguf(tmp_path / "tied.gguf", is_tied=True)
    adapter = write_tiny_lora(tmp_path / "table.gguf", **halves(TABLE, (TOKENS, RANK), (EMBEDDING, RANK)))

    with pytest.raises(GGUFInvalid, match="the output of its model as well"):
        spec_of(store, "m", tied, adapter.read_bytes())


def test_quantised_weights_are_changed_too(load: Load, folder: Path, lora: Path) -> None:
    quantised = write_tiny_gguf(folder / "quantised.gguf")

    assert greedy(load(quantised, lora)).text != greedy(load(quantised)).text


def test_asked_through_the_grammar_it_is_the_same_model(load: Load, base: Path, lora: Path, merged: Path) -> None:
    schema = {"enum": ["a ship", "a boat", "a raft", "a kayak", "a ferry"]}

    (adapted,), (wanted,) = (
        run(engine, ask(PROMPT, schema, temperature=0.0)) for engine in (load(base, lora), load(merged))
    )

    assert adapted.text == wanted.text
