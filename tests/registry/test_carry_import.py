"""Models of archives as they come in: byte for byte, each blob once, and one model's trouble is no other's."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, select

from registry.carry import contents
from registry.carry.errors import CarryError
from registry.carry.inventory import TITLE, digests_in, inventory_lines
from registry.carry.layout import ModelAt
from registry.carry.reader import Archive, Stored
from registry.mirror.mirrors import Mirrors, parse_mirror
from storage.digest import Digest
from storage.manifest import MAX_MANIFEST
from storage.models import Object
from storage.models import Upload as UploadRow
from storage.reference import RepositoryName, Tag
from storage.store import Store
from tests.registry.carried import Layout, Stores, bring, entry, export, flip, manifest_of, put_index
from tests.stored_models import push_model

WEIGHTS = bytes(range(256)) * 12_000 + b"the end of all weights"  # three blocks of reading


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def source(stores: Stores) -> Store:
    """What the tests here only read."""
    store = stores.new()
    push_model(store, "acme/llama:v1", None, model=WEIGHTS, system="be brief")
    push_model(store, "acme/llama:v2", None, model=WEIGHTS, system="be long")
    push_model(store, "other/copy", None, model=WEIGHTS, system="the third")
    put_index(store, "deep/ly/nested/name", "v1", "one", "two")
    return store


@pytest.fixture(scope="module")
def archive(source: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "all.tar"
    export(source, path, "*")
    return path


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.new()


def objects(store: Store) -> int:
    with store.database.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(Object)).scalar_one())


def sessions(store: Store) -> list[int]:
    """How far each open upload session is."""
    query = select(UploadRow.offset).where(UploadRow.finished_digest.is_(None))
    with store.database.connect() as connection:
        return list(connection.execute(query).scalars())


def test_models_come_as_they_went(source: Store, archive: Path, store: Store, tmp_path: Path) -> None:
    brought, _ = bring(store, archive)

    assert (brought.models, brought.refused) == (4, 0)
    for name in ("acme/llama:v1", "acme/llama:v2", "other/copy:latest", "deep/ly/nested/name:v1"):
        assert manifest_of(store, name) == manifest_of(source, name)
    assert objects(store) == objects(source)  # what several repositories hold is stored once
    export(store, tmp_path / "again.tar", "*")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    assert store.collector.candidates().objects == 0


def test_what_is_here_is_not_read_again(source: Store, archive: Path, store: Store, tmp_path: Path) -> None:
    bring(store, archive)
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(archive.read_bytes())
    flip(damaged, b"the third")

    brought, _ = bring(store, damaged)

    assert (brought.models, brought.refused) == (4, 0)


def test_a_tag_moves_to_what_the_archive_has(archive: Path, store: Store) -> None:
    before = push_model(store, "acme/llama:v1", None, model=b"GGUF older")

    brought, _ = bring(store, archive)

    assert brought.refused == 0
    repository = RepositoryName("acme/llama")
    assert store.repositories.get_manifest(repository, Tag("v1")).digest != before
    assert store.repositories.tags(repository)[0] == ["v1", "v2"]


def test_a_delta_brings_what_an_inventory_lacks(source: Store, store: Store, stores: Stores, tmp_path: Path) -> None:
    export(source, tmp_path / "first.tar", "acme/llama:v1")
    bring(store, tmp_path / "first.tar")
    listed = tmp_path / "inventory"
    listed.write_text("".join(f"{line}\n" for line in inventory_lines(store.database)))

    for name, since in (("by-list", listed), ("by-archive", tmp_path / "first.tar")):
        export(source, tmp_path / f"{name}.tar", "acme/llama:*", "other/*", since=(since,))

    delta = tmp_path / "by-list.tar"
    assert listed.read_text().splitlines()[0] == TITLE
    assert len(list(digests_in(delta))) == 3 + 2  # three manifests, two texts
    assert delta.read_bytes() == (tmp_path / "by-archive.tar").read_bytes()
    brought, _ = bring(store, delta)
    assert (brought.models, brought.refused) == (3, 0)
    assert manifest_of(store, "other/copy:latest") == manifest_of(source, "other/copy:latest")


def test_what_a_delta_left_out_and_nobody_has_is_named(source: Store, store: Store, tmp_path: Path) -> None:
    export(source, tmp_path / "first.tar", "acme/llama:v1")
    export(source, tmp_path / "delta.tar", "acme/llama:*", "deep/*", since=(tmp_path / "first.tar",))

    brought, lines = bring(store, tmp_path / "delta.tar")

    assert (brought.models, brought.refused) == (1, 2)
    weights = str(Digest.of(WEIGHTS))
    assert [line.split(":")[0] for line in lines if weights in line] == ["refused acme/llama"] * 2
    assert "neither in the archive nor in this store" in lines[0]
    assert store.repositories.catalog()[0] == ["deep/ly/nested/name"]
    assert sessions(store) == []


@pytest.mark.parametrize("text", [f"{TITLE}\nsha256:12\n", f"{TITLE}\n../../etc\n", "what is this\n", ""])
def test_what_is_neither_inventory_nor_archive_is_said(source: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "since").write_text(text)

    with pytest.raises(CarryError, match=r"since"):
        export(source, tmp_path / "a.tar", "other/copy", since=(tmp_path / "since",))


def test_a_flipped_bit_keeps_out_the_models_that_need_it_and_no_other(
    source: Store, archive: Path, store: Store, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(archive.read_bytes())
    flip(damaged, b"the end of all weights")

    brought, lines = bring(store, damaged)

    assert (brought.models, brought.refused) == (1, 3)
    assert sum(f"the archive holds other bytes than {Digest.of(WEIGHTS)}" in line for line in lines) == 3
    assert sessions(store) == []
    assert store.repositories.catalog()[0] == ["deep/ly/nested/name"]
    assert bring(store, archive)[0].refused == 0


def test_a_flipped_bit_in_a_manifest_is_found(archive: Path, store: Store, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(archive.read_bytes())
    raw = manifest_of_archive(archive)
    flip(damaged, raw)

    brought, lines = bring(store, damaged)

    assert (brought.models, brought.refused) == (3, 1)
    assert str(Digest.of(raw)) in lines[0]


def manifest_of_archive(path: Path) -> bytes:
    """Of its first model."""
    with path.open("rb", buffering=0) as file:
        archive = Archive(file)
        return archive.read(archive.models[0].manifest.digest, 10_000)


def test_an_import_that_broke_off_goes_on_in_the_middle_of_a_blob(
    archive: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, weights, starts = Archive.read_at, Digest.of(WEIGHTS), list[int]()

    def breaks(self: Archive, stored: Stored, start: int, size: int) -> bytes:
        if stored.size == len(WEIGHTS):
            starts.append(start)
            if len(starts) == 2:
                raise CarryError("cannot read the archive: Input/output error")
        return whole(self, stored, start, size)

    monkeypatch.setattr(Archive, "read_at", breaks)
    with pytest.raises(CarryError, match="Input/output error"):
        bring(store, archive)
    assert sessions(store) == [1024 * 1024]

    brought, _ = bring(store, archive)

    assert (brought.models, brought.refused) == (4, 0)
    assert starts[2] == 1024 * 1024
    assert all(first <= then for first, then in pairwise(starts))
    assert store.blobs.open(RepositoryName("other/copy"), weights).read() == WEIGHTS
    assert sessions(store) == []


@pytest.mark.parametrize("left", [b"other bytes", WEIGHTS[:-1] + b"!", WEIGHTS + b"!"])
def test_wrong_bytes_of_an_earlier_import_are_thrown_away(archive: Path, store: Store, left: bytes) -> None:
    digest = Digest.of(WEIGHTS)
    upload = store.uploads.start(
        RepositoryName("acme/llama"), principal="import", algorithm="sha256", opened_with=f"import:{digest}"[:64]
    )
    upload.append(Blocks(left))  # type: ignore[arg-type]

    brought, _ = bring(store, archive)

    assert (brought.models, brought.refused) == (4, 0)
    assert sessions(store) == []


class Blocks:
    """A body."""

    def __init__(self, data: bytes) -> None:
        self._blocks: Iterator[bytes] = iter((data,))

    def read(self, size: int) -> bytes:
        return next(self._blocks, b"")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_layout_of_another_tool_comes_in_whatever_its_order(store: Store, tmp_path: Path, form: int) -> None:
    layout = Layout({})
    layout.model("docker.io/library/x:v1", layout.blob(b"GGUF", Digest.of(b"GGUF", "sha512")))
    layout.entries |= {"index.json": b"", "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    folders = [entry(each, tarfile.DIRTYPE) for each in ("./", "./blobs/", "blobs/sha256/", "blobs/sha512")]

    brought, lines = bring(store, layout.write(tmp_path / "a.tar", *folders, form=form, prefix="./"))

    assert (brought.models, lines) == (1, ["imported docker.io/library/x:v1"])


def test_bytes_that_one_model_lists_as_a_manifest_and_another_as_a_layer_come_once(
    stores: Stores, store: Store, tmp_path: Path
) -> None:
    here = stores.new()
    push_model(here, "acme/llama:v1", None, model=b"GGUF")
    push_model(here, "acme/llama:v2", None, model=manifest_of(here, "acme/llama:v1"))
    export(here, tmp_path / "a.tar", "acme/*")

    brought, _ = bring(store, tmp_path / "a.tar")

    assert (brought.models, brought.refused) == (2, 0)
    assert manifest_of(store, "acme/llama:v2") == manifest_of(here, "acme/llama:v2")


@pytest.mark.parametrize("name", [None, "v1", "UPPER/case:v1", "host:5000/a/b:v1", "../../etc:v1", "_staged/a:v1", ""])
def test_a_model_without_a_fitting_name_gets_one_from_the_operator(
    store: Store, tmp_path: Path, name: str | None
) -> None:
    layout = Layout()
    layout.model(name, layout.blob(b"GGUF"))
    path = layout.write(tmp_path / "a.tar")

    refused, lines = bring(store, path)
    brought, _ = bring(store, path, ModelAt.parse("acme/named:v1"))

    assert (refused.refused, brought.models) == (1, 1)
    assert "--as" in lines[0]
    assert store.repositories.catalog()[0] == ["acme/named"]


def test_one_name_is_not_for_many_models(archive: Path, store: Store) -> None:
    with pytest.raises(CarryError, match="the archive holds 4"):
        bring(store, archive, ModelAt.parse("acme/named:v1"))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "not JSON"),
        (b'{"schemaVersion":2,"mediaType":"application/json"}', "media"),
        (b'{"schemaVersion":2,"layers":[{"mediaType":"a","digest":"../x","size":1}]}', "config"),
        (b"{" + bytes(MAX_MANIFEST), f"more than {MAX_MANIFEST} bytes"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_keeps_no_other_out(store: Store, tmp_path: Path, raw: bytes, said: str) -> None:
    layout = Layout()
    layout.manifest("acme/bad:v1", raw)
    layout.model("acme/good:v1", layout.blob(b"GGUF"))

    brought, lines = bring(store, layout.write(tmp_path / "a.tar"))

    assert (brought.models, brought.refused) == (1, 1)
    assert lines[0].startswith("refused acme/bad:v1: ")
    assert said in lines[0]


def test_nothing_goes_below_a_mirror_which_would_give_it_up(archive: Path, store: Store, tmp_path: Path) -> None:
    Mirrors(store.database).add(parse_mirror("acme", "https://registry.example"))

    brought, lines = bring(store, archive)

    assert (brought.models, brought.refused) == (2, 2)
    assert lines[0] == (
        "refused acme/llama:v1: acme mirrors https://registry.example; import it under another name with --as"
    )
    assert store.repositories.catalog()[0] == ["deep/ly/nested/name", "other/copy"]


def test_more_blobs_than_an_archive_can_have_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MAX_ENTRIES", 3)
    layout = Layout()
    layout.model("acme/bad:v1", *(layout.blob(b"GGU%d" % number) for number in range(3)))  # and a configuration
    layout.model("acme/good:v1", layout.blob(b"GGU0"), layout.blob(b"GGU1"))

    brought, lines = bring(store, layout.write(tmp_path / "a.tar"))

    assert (brought.models, brought.refused) == (1, 1)
    assert "more than 3 blobs" in lines[0]


def test_sizes_that_contradict_each_other_are_refused(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    layout.model("acme/bad:v1", layout.blob(b"GGUF"), size=5)
    layout.model("acme/good:v1", layout.blob(b"GGUF"))

    brought, lines = bring(store, layout.write(tmp_path / "a.tar"))

    assert (brought.models, brought.refused) == (1, 1)
    assert "5 bytes, the archive has 4" in lines[0]
    assert sessions(store) == []
