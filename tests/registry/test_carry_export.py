"""Archives of models as they are written: the same bytes each time, whole or not at all, and gone on with."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from registry.carry.errors import BlobDamaged, CarryError, ExportRefused
from registry.carry.headers import Members, ending, header, padding
from registry.carry.partial import partial_of
from registry.carry.selection import chosen
from storage.digest import Digest
from storage.reference import ModelName
from storage.store import Store
from tests.registry.carried import Stores, export, put_index
from tests.registry.unfit_files import UNFIT, VICTIM
from tests.stored_models import push_model

WEIGHTS = bytes(range(256)) * 12_000  # three blocks of reading


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def store(stores: Stores) -> Store:
    """What the tests here only read."""
    store = stores.new()
    push_model(store, "acme/llama:v1", None, model=WEIGHTS, system="be brief")
    push_model(store, "acme/llama:v2", None, model=WEIGHTS, system="be long")
    push_model(store, "acme/other:V1", None, model=b"GGUF other")
    push_model(store, "tiny", None, model=b"GGUF tiny")
    put_index(store, "deep/ly/nested/name", "v1", "one", "two")
    return store


@pytest.fixture(scope="module")
def whole(store: Store, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of three models."""
    path = tmp_path_factory.mktemp("whole") / "whole.tar"
    export(store, path, "acme/llama:v1", "acme/llama:v2", "tiny")
    return path.read_bytes()


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_the_same_models_make_the_same_bytes_however_they_are_named(store: Store, whole: bytes, tmp_path: Path) -> None:
    export(store, tmp_path / "b.tar", "library/tiny:latest", "ACME/llama*", "tiny")

    assert (tmp_path / "b.tar").read_bytes() == whole


def test_another_tar_reader_finds_an_image_layout_in_its_order(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "a.tar", "acme/llama:*", "deep/*")

    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
        assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {(0, 0, 0, "", 0o644)}
        texts = {each.name: tar.extractfile(each).read() for each in members}
    assert list(texts)[:3] == ["oci-layout", "index.json", "tonnage-signature.json"]
    index = json.loads(texts["index.json"])
    listed = [(each["annotations"], each["digest"].replace(":", "/")) for each in index["manifests"]]
    assert [name["org.opencontainers.image.ref.name"] for name, _ in listed] == [
        "acme/llama:v1", "acme/llama:v2", "deep/ly/nested/name:v1",
    ]  # fmt: skip
    manifests, blobs = list(texts)[3:8], list(texts)[8:]
    assert {f"blobs/{path}" for _, path in listed} < set(manifests)  # and two children
    assert manifests == sorted(manifests) and blobs == sorted(blobs)
    assert len(set(texts)) == len(members) == 3 + 5 + 7  # weights and config stand there once


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("acme/llama:v1", ["acme/llama:v1"]),
        ("ACME/Other:v1", ["acme/other:V1"]),
        ("tiny", ["library/tiny:latest"]),
        ("tiny*", ["library/tiny:latest"]),
        ("acme/*", ["acme/llama:v1", "acme/llama:v2", "acme/other:V1"]),
        ("*:v2", ["acme/llama:v2"]),
        ("deep/ly/nested/name:v1", ["deep/ly/nested/name:v1"]),
    ],
)
def test_what_people_type_means(store: Store, typed: str, found: list[str]) -> None:
    assert [str(at) for at in chosen(store.repositories, [typed])] == found


@pytest.mark.parametrize("typed", ["nobody/here", "acme/llama", "acme/llama:v3", "nobody/*", "", "a b", "../../etc"])
def test_a_name_that_means_nothing_is_refused(store: Store, typed: str, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"no model"):
        export(store, tmp_path / "a.tar", "tiny", typed)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [0, 1, 700, 1900, 4096, 5200, 100_000, 2_500_000, -1])
def test_an_export_that_was_cut_goes_on(store: Store, whole: bytes, tmp_path: Path, cut: int) -> None:
    left = whole[:cut]
    (tmp_path / "a.tar.partial").write_bytes(left)

    written = export(store, tmp_path / "a.tar", "acme/llama:v1", "acme/llama:v2", "tiny")

    assert (tmp_path / "a.tar").read_bytes() == whole
    assert (written.kept, written.size) == (len(left), len(whole))
    assert not (tmp_path / "a.tar.partial").exists()


@pytest.mark.parametrize("at", [100, 1100, 1_000_000])
def test_what_a_partial_file_has_otherwise_is_written_anew(store: Store, whole: bytes, tmp_path: Path, at: int) -> None:
    damaged = bytearray(whole[:2_000_000] + b"and more than there will ever be" * 100_000)
    damaged[at] ^= 1
    (tmp_path / "a.tar.partial").write_bytes(damaged)

    written = export(store, tmp_path / "a.tar", "acme/llama:v1", "acme/llama:v2", "tiny")

    assert (tmp_path / "a.tar").read_bytes() == whole
    assert written.kept <= at


def test_a_partial_file_that_another_key_signed_is_begun_anew(store: Store, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar.partial").write_bytes(whole)

    export(store, tmp_path / "a.tar", "acme/llama:*", "tiny", key=PrivateKey.from_seed(b"x" * 32))

    again = tmp_path / "b.tar"
    export(store, again, "acme/llama:*", "tiny", key=PrivateKey.from_seed(b"x" * 32))
    assert (tmp_path / "a.tar").read_bytes() == again.read_bytes() != whole


def test_a_file_that_another_export_writes_is_left_alone(store: Store, tmp_path: Path) -> None:
    with partial_of(tmp_path / "a.tar") as other:
        other.write(b"other")

        with pytest.raises(CarryError, match="another export is writing"):
            export(store, tmp_path / "a.tar", "tiny")

    assert (tmp_path / "a.tar.partial").read_bytes() == b"other"


@pytest.mark.parametrize(("make", "said"), UNFIT)
def test_a_partial_file_that_others_may_have_made_or_can_change_is_refused(
    store: Store, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / "a.tar.partial")

    with pytest.raises(CarryError, match=f"{said}.*remove it"):
        export(store, tmp_path / "a.tar", "tiny")

    assert not (tmp_path / "a.tar").exists()
    assert all(path.read_bytes() == VICTIM for path in tmp_path.iterdir() if path.is_file())


def test_what_is_written_is_for_nobody_else_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with partial_of(tmp_path / "a.tar") as out:
            out.finish(tmp_path / "a.tar", replaces=False)
    finally:
        os.umask(mask)

    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o600


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_comes_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", _no_links)  # as on the disks that archives are carried on
    target = tmp_path / "a.tar"
    with partial_of(target) as out:
        out.write(b"ours")
        target.write_bytes(b"theirs")

        with pytest.raises(CarryError, match=r"came to exist meanwhile.*is kept"):
            out.finish(target, replaces=False)
    assert (target.read_bytes(), (tmp_path / "a.tar.partial").read_bytes()) == (b"theirs", b"ours")

    target.unlink()
    with partial_of(target) as out:
        out.write(b"ours")
        out.finish(target, replaces=False)

    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_blob_ends_the_export_and_is_named(stores: Stores, tmp_path: Path, damage: str) -> None:
    store = stores.new()
    push_model(store, "acme/llama", None, model=WEIGHTS)
    name = ModelName.parse("acme/llama")
    manifest = json.loads(store.repositories.get_manifest(name.repository, name.tag).raw)
    weights = manifest["layers"][0]["digest"]
    file = store.blobs.local_path(name.repository, Digest.parse(weights))
    assert file is not None
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(WEIGHTS[:-1] + (b"!" if damage == "flipped" else b""))

    with pytest.raises(BlobDamaged, match=weights):
        export(store, tmp_path / "a.tar", "acme/llama")
    assert not (tmp_path / "a.tar").exists()

    file.write_bytes(WEIGHTS)
    export(store, tmp_path / "a.tar", "acme/llama")

    assert names_in(tmp_path / "a.tar")[:1] == ["oci-layout"]


def test_a_model_that_is_not_all_here_is_refused_before_anything_is_written(stores: Stores, tmp_path: Path) -> None:
    store = stores.new()
    digest = push_model(store, "acme/llama", None, model=b"GGUF")
    raw = store.repositories.get_manifest(ModelName.parse("acme/llama").repository, digest).raw
    elsewhere = ModelName.parse("acme/sparse")
    store.repositories.put_manifest(elsewhere.repository, elsewhere.tag, raw, allow_sparse=True)

    with pytest.raises(ExportRefused, match=r"acme/sparse:latest cannot be exported: blob sha256:"):
        export(store, tmp_path / "a.tar", "acme/sparse")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, 8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_sizes_beyond_what_old_headers_can_say(tmp_path: Path, size: int) -> None:
    name = f"blobs/sha512/{'a' * 128}"
    path = tmp_path / "sparse.tar"
    head = header(name, size)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size + len(padding(size)))
        file.seek(0, 2)
        file.write(ending(file.tell()))

    with path.open("rb", buffering=0) as file:
        ours = [(each.name, each.offset, each.size) for each in Members(file)]
    with tarfile.open(path) as tar:
        theirs = [(each.name, each.offset_data, each.size) for each in tar]

    assert ours == theirs == [(name, len(head), size)]
    assert path.stat().st_size % tarfile.RECORDSIZE == 0
