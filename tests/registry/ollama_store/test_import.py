"""Ollama's models into the store: linked or copied, byte for byte, once, and nobody's to take away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from auth.audit import AuditTrail, What
from storage.digest import Digest
from storage.reference import RepositoryName, Tag
from tests.backends import ON_S3
from tests.client import Client
from tests.ollama_folder import CONFIG, DEFAULT, OllamaFolderMaker
from tests.ollama_imports import NAME, PLACE, TEMPLATE, WEIGHTS, Installation, let_leases_lapse
from tests.server import running_server


def test_blobs_become_links_and_the_manifest_stays_as_it_is(here: Installation, ollama: OllamaFolderMaker) -> None:
    raw = ollama.add(PLACE, WEIGHTS, TEMPLATE)
    before = ollama.seen()

    lines = here.imports(ollama.path)

    assert lines[0][:2] == ["imported", NAME]
    assert lines[0][2].startswith("3 linked (10 KB), 0 copied (0 B), 0 already here")
    assert lines[1][0].startswith("models: 1 imported, 0 already here, 0 refused, 0 skipped; blobs: 3 linked")
    assert here.raw(NAME) == raw
    for data in (WEIGHTS, TEMPLATE, CONFIG):
        ours, theirs = here.file(NAME, Digest.of(data)).stat(), ollama.blob(Digest.of(data)).stat()
        assert (ours.st_ino, ours.st_dev, ours.st_nlink) == (theirs.st_ino, theirs.st_dev, 2)
    assert ollama.seen() == before


def test_the_import_is_in_the_audit_trail(here: Installation, ollama: OllamaFolderMaker) -> None:
    raw = ollama.add(PLACE, WEIGHTS)

    here.imports(ollama.path)

    (row,) = AuditTrail(here.store.database).events(what=What.IMPORT_MODEL)
    assert (row.repository, row.reference) == ("library/llama3", "8b")
    assert row.who.startswith("cli:")
    assert str(Digest.of(raw)) in (row.detail or "")


@pytest.mark.parametrize("where", ["parent", "link"])
def test_the_folder_may_be_named_by_its_parent_or_by_a_link(
    here: Installation, ollama: OllamaFolderMaker, tmp_path: Path, where: str
) -> None:
    ollama.add(PLACE, WEIGHTS)
    (tmp_path / "link").symlink_to(ollama.path)

    here.imports(ollama.path.parent if where == "parent" else tmp_path / "link")

    assert here.tags() == [NAME]


def test_a_second_import_does_nothing(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS, TEMPLATE)
    here.imports(ollama.path)
    keys, pushed = list(here.store.driver.keys("")), _pushed_at(here)
    ollama.blob(Digest.of(WEIGHTS)).unlink()  # what is here is not looked for there

    lines = here.imports(ollama.path)

    assert lines[0][:2] == ["already here", NAME]
    assert lines[0][2].startswith("0 linked (0 B), 0 copied (0 B), 3 already here (10 KB)")
    assert (list(here.store.driver.keys("")), _pushed_at(here)) == (keys, pushed)


def _pushed_at(here: Installation) -> float:
    return here.store.repositories.get_manifest(RepositoryName("library/llama3"), Tag("8b")).pushed_at


def test_a_blob_of_two_models_is_linked_once(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS, b"one")
    ollama.add("hf.co/org/m/latest", WEIGHTS, b"two")

    lines = here.imports(ollama.path)

    assert sorted(line[2].split(" (")[0] for line in lines[:2]) == ["1 linked", "3 linked"]
    assert ollama.blob(Digest.of(WEIGHTS)).stat().st_nlink == 2
    assert here.file(NAME, Digest.of(WEIGHTS)) == here.file("hf.co/org/m", Digest.of(WEIGHTS))


@pytest.mark.parametrize("is_removed_here", [True, False])
def test_neither_side_can_take_a_shared_file_from_the_other(
    here: Installation, ollama: OllamaFolderMaker, is_removed_here: bool
) -> None:
    ollama.add(PLACE, WEIGHTS, TEMPLATE)
    here.imports(ollama.path)
    before = ollama.seen()

    if is_removed_here:
        here.store.repositories.remove_model(RepositoryName("library/llama3"), Tag("8b"))
        let_leases_lapse(here.store)
    else:
        shutil.rmtree(ollama.path)
    swept = here.store.collector.sweep()

    if is_removed_here:
        assert (swept.objects, list(here.store.driver.keys(""))) == (3, [])
        assert ollama.seen() == before
    else:
        assert swept.objects == 0
        assert here.file(NAME, Digest.of(WEIGHTS)).read_bytes() == WEIGHTS
        assert [checked.problem for checked in here.store.scrubber.run()] == [None] * 3


def test_blobs_of_another_filesystem_are_copied(here: Installation, elsewhere: OllamaFolderMaker) -> None:
    elsewhere.add(PLACE, WEIGHTS, TEMPLATE)

    lines = here.imports(elsewhere.path)

    assert lines[0][2].startswith("0 linked (0 B), 3 copied (10 KB)")
    assert here.file(NAME, Digest.of(WEIGHTS)).read_bytes() == WEIGHTS
    assert elsewhere.blob(Digest.of(WEIGHTS)).stat().st_nlink == 1


def test_copies_can_be_asked_for(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS)

    assert here.imports(ollama.path, "--copy")[0][2].startswith("0 linked (0 B), 2 copied")

    assert ollama.blob(Digest.of(WEIGHTS)).stat().st_nlink == 1


def _give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.chmod(0o664), id="its group may write"),
        pytest.param(lambda path: path.chmod(0o646), id="everybody may write"),
        pytest.param(lambda path: path.chmod(0o444), id="we may not write"),
        pytest.param(_give_away, id="another user's"),
    ],
)
def test_a_file_that_others_can_change_is_copied(
    here: Installation, ollama: OllamaFolderMaker, change: Callable[[Path], None]
) -> None:
    ollama.add(PLACE, WEIGHTS, TEMPLATE)
    change(ollama.blob(Digest.of(WEIGHTS)))

    assert here.imports(ollama.path)[0][2].startswith("2 linked (78 B), 1 copied (10 KB)")

    assert ollama.blob(Digest.of(WEIGHTS)).stat().st_nlink == 1
    assert here.file(NAME, Digest.of(WEIGHTS)).read_bytes() == WEIGHTS


def test_a_model_that_is_here_with_other_content_is_replaced_only_when_told(
    here: Installation, ollama: OllamaFolderMaker
) -> None:
    old = ollama.add(PLACE, b"old weights")
    here.imports(ollama.path)
    new = ollama.add(PLACE, WEIGHTS)

    (line, _) = here.imports(ollama.path, status=1)
    assert "--replace" in line[2]
    assert here.raw(NAME) == old
    here.imports(ollama.path, "--replace")

    assert here.raw(NAME) == new
    (row,) = AuditTrail(here.store.database).events(what=What.TAG_MOVE)
    assert row.detail == f"from {Digest.of(old)} to {Digest.of(new)}"
    let_leases_lapse(here.store)
    assert here.store.collector.sweep().objects == 1  # the old weights; the configuration is in both


def test_a_stub_of_a_model_elsewhere_is_a_model_without_layers(here: Installation, ollama: OllamaFolderMaker) -> None:
    raw = ollama.add(f"{DEFAULT}/big/cloud-stub", config=b'{"remote_host":"https://example.com"}\n')

    here.imports(ollama.path)

    assert here.raw("big:cloud-stub") == raw


def test_what_the_store_has_already_need_not_be_in_the_folder(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS)
    here.store.blobs.put(RepositoryName("team/own"), WEIGHTS)
    ollama.blob(Digest.of(WEIGHTS)).unlink()

    assert here.imports(ollama.path)[0][2].startswith("1 linked (65 B), 0 copied (0 B), 1 already here (10 KB)")

    assert here.file(NAME, Digest.of(WEIGHTS)).read_bytes() == WEIGHTS


def test_an_imported_model_runs(tmp_path: Path, tiny_gguf: Path) -> None:
    ollama = OllamaFolderMaker(tmp_path / "models")
    ollama.add(f"{DEFAULT}/tiny/latest", tiny_gguf.read_bytes(), TEMPLATE)

    with running_server(tmp_path / "data") as server:
        said = server.run("import-ollama", str(ollama.path)).stdout
        body = {"model": "tiny", "prompt": "hello", "stream": False, "options": {"num_predict": 4, "temperature": 0}}
        answer = Client(server.host).post_json("/api/generate", body)

    assert said.startswith(f"imported\tlibrary/tiny:latest\t{'0 linked (0 B), 3 copied' if ON_S3 else '3 linked'}")
    assert answer.status == 200, answer.body
    assert (answer.json["done"], answer.json["eval_count"]) == (True, 4)
