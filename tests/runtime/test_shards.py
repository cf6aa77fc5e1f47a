"""Weights in several files: put in order by what their headers say, and answering like the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.gguf import Header, read_header
from runtime.memory import estimate_memory
from runtime.model import Model, load_model
from runtime.options import LoadOptions
from runtime.runner.library import Log
from runtime.runner.library import Model as Loaded
from runtime.runner.settings import RunnerSettings
from runtime.shards import in_order, joined
from runtime.summary import summary
from runtime.weights import identity
from storage.reference import ModelName
from storage.store import Store
from tests.stored_models import OLLAMA, model_spec, open_store, push_layers
from tests.supervised import Supervised, answer, request, supervised
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_lora import write_tiny_lora

PROMPT = "hello world, the ship"
TYPES = [OLLAMA + "model", "application/vnd.docker.ai.gguf.v3", "application/vnd.cncf.model.weight.v1.raw"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    return write_tiny_gguf(folder / "whole.gguf")


@pytest.fixture(scope="module")
def parts(folder: Path) -> list[Path]:
    """The same weights in three files."""
    write_tiny_gguf(folder / "part.gguf", shard_tensors=8)
    return sorted(folder.glob("part-*.gguf"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with supervised(tmp_path_factory.mktemp("run")) as started:
        yield started


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


def pushed(store: Store, *files: Path, kind: str = TYPES[0], titles: tuple[str, ...] = (), **config: Any) -> Model:
    push_layers(store, "m", [(kind, each.read_bytes()) for each in files], titles=titles, config=config)
    return load_model(store, ModelName.parse("m"))


@pytest.mark.parametrize("kind", TYPES)
def test_the_parts_answer_like_the_whole(
    store: Store, running: Supervised, whole: Path, parts: list[Path], kind: str
) -> None:
    said = []
    for files in ([whole], [parts[2], parts[0], parts[1]]):
        lease = running.client.lease(model_spec(store, pushed(store, *files, kind=kind), LoadOptions(num_ctx=512)), 0)
        said.append(answer(lease, request(PROMPT))[0])
        lease.close()

    assert said[0] == said[1] != ""


def test_parts_are_known_without_types_and_names(store: Store, parts: list[Path]) -> None:
    model = pushed(store, *parts, kind="application/octet-stream")

    assert len(model.files.weights) == 3


def test_the_parts_are_described_like_the_whole(store: Store, whole: Path, parts: list[Path]) -> None:
    wanted = pushed(store, whole)

    model = pushed(store, *parts[::-1])

    assert model.details == wanted.details
    assert model.header.metadata == wanted.header.metadata
    assert {tensor.name for tensor in model.header.tensors} == {tensor.name for tensor in wanted.header.tensors}
    assert model.capabilities == wanted.capabilities
    (row,) = store.repositories.tagged()
    listed = summary(store, row.repository, model.digest)
    assert listed is not None
    assert (listed.details, listed.reason) == (wanted.details, "")
    assert listed.size == sum(part.stat().st_size for part in parts) + len(json.dumps({}))


def test_a_runner_is_known_by_all_parts_in_order(store: Store, whole: Path, parts: list[Path]) -> None:
    names = [pushed(store, *files) for files in (parts, parts[::-1], [whole])]

    assert identity(names[0]) == identity(names[1]) == "+".join(str(each.digest) for each in names[0].files.weights)
    assert identity(names[0]).count("+") == 2
    assert identity(names[2]) != identity(names[0])


def test_memory_is_that_of_all_parts(store: Store, whole: Path, parts: list[Path]) -> None:
    specs = [model_spec(store, pushed(store, *files), LoadOptions()) for files in ([whole], parts)]

    assert specs[0].memory.weights_bytes == pytest.approx(specs[1].memory.weights_bytes, rel=0.01)
    assert replace(specs[0].memory, weights_bytes=0) == replace(specs[1].memory, weights_bytes=0)


def test_the_estimate_is_near_what_llama_cpp_maps(parts: list[Path]) -> None:
    first, *more = map(str, parts)
    log = Log()
    Loaded(RunnerSettings(first, "", 512, num_gpu=0, more_paths=tuple(more)), log, lambda _: None)

    need = estimate_memory(joined([header_of(part) for part in parts]))

    assert need.weights_bytes + need.repacked_bytes == pytest.approx(log.host_bytes, rel=0.1)


def test_parts_take_adapters(store: Store, running: Supervised, parts: list[Path], folder: Path) -> None:
    adapter = write_tiny_lora(folder / "lora.gguf").read_bytes()
    push_layers(store, "m", [*((TYPES[0], each.read_bytes()) for each in parts), (OLLAMA + "adapter", adapter)])
    adapted = load_model(store, ModelName.parse("m"))

    said = []
    for model in (adapted, pushed(store, *parts)):
        lease = running.client.lease(model_spec(store, model, LoadOptions(num_ctx=512)), 0)
        said.append(answer(lease, request(PROMPT))[0])
        lease.close()

    assert said[0] != said[1]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([0], "lack part 2 and 3 of 3"),
        ([0, 2], "lack part 2 of 3"),
        ([1, 2], "lack part 1 of 3"),
        ([0, 1, 1], "part 2 of 3 twice"),
        ([0, 0, 1, 2], "part 1 of 3 twice"),
    ],
)
@pytest.mark.parametrize("kind", TYPES[:2])
def test_a_part_that_is_missing_or_there_twice_is_named(
    store: Store, parts: list[Path], chosen: list[int], words: str, kind: str
) -> None:
    with pytest.raises(ModelUnusable, match=words):
        pushed(store, *(parts[each] for each in chosen), kind=kind)


def test_a_list_shows_what_lacks_a_part_and_says_so(store: Store, parts: list[Path]) -> None:
    with pytest.raises(ModelUnusable):
        pushed(store, parts[0], parts[2], model_family="llama", model_type="100K")
    (row,) = store.repositories.tagged()
    digest = store.repositories.get_manifest(ModelName.parse("m").repository, ModelName.parse("m").tag).digest

    listed = summary(store, row.repository, digest)

    assert listed is not None
    assert "lack part 2 of 3" in listed.reason
    assert (listed.details["family"], listed.details["parameter_size"]) == ("llama", "100K")


def test_of_several_whole_models_the_last_one_wins(store: Store, whole: Path, folder: Path) -> None:
    other = write_tiny_gguf(folder / "other.gguf", seed=3)

    model = pushed(store, whole, other)

    assert [str(layer.digest) for layer in model.files.weights] == [str(model.layers.layers[1].digest)]


def test_parts_after_a_whole_model_are_the_model(store: Store, whole: Path, parts: list[Path]) -> None:
    assert len(pushed(store, whole, *parts).files.weights) == 3


def test_whole_files_of_other_tools_are_no_parts(store: Store, whole: Path, folder: Path) -> None:
    other = write_tiny_gguf(folder / "another.gguf", seed=4)

    with pytest.raises(ModelUnusable, match="not parts of one another"):
        pushed(store, whole, other, kind=TYPES[1])


def test_a_part_of_another_model_is_refused(store: Store, parts: list[Path], folder: Path) -> None:
    write_tiny_gguf(folder / "bert.gguf", arch="bert", shard_tensors=13)
    strangers = sorted(folder.glob("bert-*.gguf"))

    with pytest.raises(ModelUnusable, match=r"belongs to another model|of different models"):
        pushed(store, *parts[:2], strangers[-1])


def test_a_damaged_part_is_refused(store: Store, parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(parts[1].read_bytes()[:-100])

    with pytest.raises(GGUFInvalid, match="not a whole GGUF file"):
        pushed(store, parts[0], tmp_path / "cut.gguf", parts[2])


def test_a_tensor_in_two_parts_is_refused(parts: list[Path]) -> None:
    headers = [header_of(part) for part in parts]
    twice = replace(headers[1], tensors=headers[0].tensors)

    with pytest.raises(ModelUnusable, match="a tensor twice"):
        joined([headers[0], twice, headers[2]])


def test_a_lost_tensor_is_missed(parts: list[Path]) -> None:
    headers = [header_of(part) for part in parts]

    with pytest.raises(ModelUnusable, match="tensors where there should be 21"):
        joined([headers[0], replace(headers[1], tensors=headers[1].tensors[1:]), headers[2]])


@pytest.mark.parametrize(
    ("number", "count"), [(3, 3), (65535, 3), ("1", 3), (True, 3), ([1], 3)], ids=["end", "far", "text", "flag", "list"]
)
def test_a_number_that_cannot_be_is_refused(parts: list[Path], number: object, count: int) -> None:
    headers = [header_of(part) for part in parts]
    told = {**headers[1].metadata, "split.no": number, "split.count": count}

    with pytest.raises(ModelUnusable):
        in_order([headers[0], replace(headers[1], metadata=told), headers[2]])  # type: ignore[arg-type]


def test_a_long_list_of_what_is_missing_is_cut(parts: list[Path]) -> None:
    first = header_of(parts[0])
    alone = replace(first, metadata={**first.metadata, "split.count": 400})

    with pytest.raises(ModelUnusable, match=r"lack part 2, 3, 4, 5, 6 and 394 more of 400"):
        in_order([alone])
