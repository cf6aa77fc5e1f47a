"""Weights inside an archive: mapped where they lie, and never taken for what the archive's bytes say by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import GGUFInvalid, ModelUnusable
from runtime.model import Model, load_model
from runtime.options import LoadOptions
from runtime.weights import identity
from storage.reference import ModelName
from storage.store import Store
from tests.foreign_models import KITOPS, packed
from tests.stored_models import OLLAMA, model_spec, open_store, push_layers
from tests.supervised import Supervised, answer, request, supervised
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_lora import write_tiny_lora

KIT = f"{KITOPS}model.v1.tar"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    with supervised(tmp_path_factory.mktemp("run")) as started:
        yield started


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def pushed(store: Store, *layers: tuple[str, bytes]) -> Model:
    push_layers(store, "m", list(layers))
    return load_model(store, ModelName.parse("m"))


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("is_adapted", [True, False], ids=["with an adapter", "alone"])
def test_weights_answer_from_inside_an_archive(
    store: Store, running: Supervised, tiny: Path, tmp_path: Path, use_mmap: bool, is_adapted: bool
) -> None:
    more = [(OLLAMA + "adapter", write_tiny_lora(tmp_path / "l.gguf").read_bytes())] if is_adapted else []
    archived = packed({"README.md": b"x" * 700, "tiny.gguf": tiny.read_bytes(), "more": b"x" * 5000})
    said = []
    for layer in ((OLLAMA + "model", tiny.read_bytes()), (KIT, archived)):
        spec = model_spec(store, pushed(store, layer, *more), LoadOptions(num_ctx=512, use_mmap=use_mmap))
        lease = running.client.lease(spec, 0)
        said.append(answer(lease, request("hello world, the ship"))[0])
        lease.close()

    assert said[0] == said[1] != ""


def test_a_runner_is_known_by_the_place_too(store: Store, tiny: Path) -> None:
    model = pushed(store, (KIT, packed({"tiny.gguf": tiny.read_bytes()})))

    spec = model_spec(store, model, LoadOptions())

    assert spec.offset == model.weights.offset > 0
    assert spec.identity == identity(model) == f"{model.weights.digest}@{spec.offset}"
    assert Path(spec.path).read_bytes()[spec.offset :].startswith(tiny.read_bytes())


def test_a_file_that_passed_as_one_thing_has_not_passed_as_another(store: Store, tiny: Path) -> None:
    fatal = tiny.read_bytes().replace(b"llama.block_count\x04\0\0\0\x02", b"llama.block_count\x04\0\0\0\x00")
    assert fatal != tiny.read_bytes()
    polyglot = tiny.read_bytes() + bytes(-tiny.stat().st_size % 512)
    archive = packed({"GGUF": polyglot, "fatal.gguf": fatal})
    model_spec(store, pushed(store, (OLLAMA + "model", tiny.read_bytes())), LoadOptions())

    inside = pushed(store, (KIT, packed({"fatal.gguf": fatal})))

    assert archive.startswith(b"GGUF")  # an archive may begin like that, so how it begins does not tell what it is
    with pytest.raises(GGUFInvalid, match="0 layers"):
        model_spec(store, inside, LoadOptions())


def test_adapters_may_not_be_in_archives(store: Store, tiny: Path, tmp_path: Path) -> None:
    adapter = write_tiny_lora(tmp_path / "lora.gguf").read_bytes()
    model = pushed(store, (KIT, packed({"a.gguf": adapter})), (KIT, packed({"tiny.gguf": tiny.read_bytes()})))

    with pytest.raises(ModelUnusable, match="only weights of one file may be in an archive"):
        model_spec(store, model, LoadOptions())


def test_parts_may_not_be_in_archives(store: Store, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "s.gguf", shard_tensors=8)
    parts = [part.read_bytes() for part in sorted(tmp_path.glob("s-*.gguf"))]
    model = pushed(store, *((KIT, packed({f"{number}.gguf": part})) for number, part in enumerate(parts)))

    with pytest.raises(ModelUnusable, match="only weights of one file may be in an archive"):
        model_spec(store, model, LoadOptions())


@pytest.mark.parametrize("cut", [-100, -50_000])
def test_an_archive_that_is_cut_holds_nothing(store: Store, tiny: Path, cut: int) -> None:
    whole = packed({"tiny.gguf": tiny.read_bytes()}).rstrip(b"\0")

    with pytest.raises(ModelUnusable):
        pushed(store, (KIT, whole[:cut]))
