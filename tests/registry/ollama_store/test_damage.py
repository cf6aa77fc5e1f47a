"""Blobs that are not what their names say: found out by their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.digest import Digest
from tests.ollama_folder import DEFAULT, OllamaFolderMaker
from tests.ollama_imports import NAME, PLACE, TEMPLATE, WEIGHTS, Installation


def _corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


def _sparse(path: Path) -> None:
    """As a daemon leaves it that sets the size first, and dies."""
    path.write_bytes(WEIGHTS[:100])
    os.truncate(path, len(WEIGHTS))


def _point_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _point_to_the_right_bytes(path: Path) -> None:
    moved = path.with_name("aside")
    path.rename(moved)
    path.symlink_to(moved)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _unfinished(path: Path) -> None:
    path.rename(path.with_name(path.name + "-partial"))
    path.with_name(path.name + ".tmp").write_bytes(WEIGHTS)


DAMAGE = [
    (_corrupt, "damaged or not complete"),
    (_truncate, "100 bytes of 10244"),
    (_sparse, "damaged or not complete"),
    (lambda path: path.write_bytes(WEIGHTS + b"more"), "10248 bytes of 10244"),
    (lambda path: path.unlink(), "is not there"),
    (_unfinished, "is not there"),
    (_point_elsewhere, "symbolic link"),
    (_point_to_the_right_bytes, "symbolic link"),
    (_pipe, "no regular file"),
]


@pytest.mark.parametrize("options", [[], ["--copy"]], ids=["link", "copy"])
@pytest.mark.parametrize(("damage", "word"), DAMAGE)
def test_a_model_with_a_bad_blob_stays_out_and_the_others_go_in(
    here: Installation,
    ollama: OllamaFolderMaker,
    damage: Callable[[Path], object],
    word: str,
    options: list[str],
) -> None:
    ollama.add(PLACE, WEIGHTS, TEMPLATE)
    good = ollama.add(f"{DEFAULT}/other/latest", b"other weights", TEMPLATE)
    damage(ollama.blob(Digest.of(WEIGHTS)))
    before = ollama.seen()

    lines = here.imports(ollama.path, *options, status=1)

    assert [line[:2] for line in lines[:2]] == [["refused", NAME], ["imported", "library/other:latest"]]
    assert word in lines[0][2]
    assert str(Digest.of(WEIGHTS)) in lines[0][2]
    assert here.tags() == ["library/other:latest"]
    assert here.raw("other") == good
    assert not here.store.blobs.holders(Digest.of(WEIGHTS))
    assert ollama.seen() == before
    assert not list((here.data / "uploads").iterdir())


def test_a_model_whose_blob_was_repaired_goes_in(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS)
    _corrupt(ollama.blob(Digest.of(WEIGHTS)))
    here.imports(ollama.path, status=1)
    ollama.blob(Digest.of(WEIGHTS)).write_bytes(WEIGHTS)

    here.imports(ollama.path)

    assert here.tags() == [NAME]
