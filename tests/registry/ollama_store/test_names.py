"""What stands in Ollama's folder of manifests, and what it is called here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from registry.mirror.mirrors import Mirrors, parse_mirror
from registry.ollama_store import folder as folders
from registry.ollama_store.folder import OllamaFolder, Unreadable
from tests.ollama_folder import DEFAULT, OllamaFolderMaker
from tests.ollama_imports import MIB, NAME, PLACE, WEIGHTS, Installation


@pytest.mark.parametrize(
    ("place", "stored"),
    [
        ("registry.ollama.ai/acme/m/v1", "acme/m:v1"),
        ("hf.co/org/Model-GGUF/Q4_K_M", "hf.co/org/model-gguf:Q4_K_M"),
        ("localhost:5000/a/m/latest", "localhost__5000/a/m:latest"),
        ("Registry.Ollama.AI/Alice/M/latest", "alice/m:latest"),
    ],
)
def test_a_foreign_host_stays_part_of_the_name(
    here: Installation, ollama: OllamaFolderMaker, place: str, stored: str
) -> None:
    ollama.add(place, WEIGHTS)

    assert here.imports(ollama.path)[0][:2] == ["imported", stored]

    assert here.tags() == [stored]


INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
UPPER = json.dumps(
    {"schemaVersion": 2, "layers": [{"mediaType": "x", "size": 1, "digest": f"sha256:{'A' * 64}"}], "config": None}
).encode()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"schemaVersion":2,"layers":[]}', INDEX, UPPER])
def test_a_manifest_that_is_none_is_refused(here: Installation, ollama: OllamaFolderMaker, raw: bytes) -> None:
    ollama.add_manifest(PLACE, raw)

    (line, _) = here.imports(ollama.path, status=1)

    assert line[:2] == ["refused", NAME]
    assert here.tags() == []


def test_what_is_no_manifest_file_is_skipped(here: Installation, ollama: OllamaFolderMaker, tmp_path: Path) -> None:
    ollama.add(PLACE, WEIGHTS)
    below = ollama.path / "manifests"
    (below / "hf.co").symlink_to(below / "registry.ollama.ai")
    (below / ".DS_Store").write_bytes(b"")
    (below / DEFAULT / "stray").write_bytes(b"")
    (below / DEFAULT / "llama3" / "folder" / "deeper").mkdir(parents=True)
    (below / DEFAULT / "llama3" / "linked").symlink_to("/etc/passwd")
    os.mkfifo(below / DEFAULT / "llama3" / "pipe")

    lines = here.imports(ollama.path)

    skipped = {line[1].rpartition("/")[2]: line[2] for line in lines if line[0] == "skipped"}
    assert set(skipped) == {"hf.co", "stray", "folder", "linked", "pipe"}
    assert "symbolic link" in skipped["linked"]
    assert here.tags() == [NAME]


def test_a_manifest_too_large_to_be_read_is_a_model_that_stays_out(
    here: Installation, ollama: OllamaFolderMaker
) -> None:
    ollama.add_manifest(PLACE, bytes(5 * MIB))

    (line, _) = here.imports(ollama.path, status=1)

    assert line == ["refused", PLACE, "is too large for a manifest"]


def test_what_may_not_be_read_is_no_reason_to_think_that_no_model_is_there(ollama: OllamaFolderMaker) -> None:
    ollama.add_manifest(PLACE, b"{}")
    below = ollama.path / "manifests"
    (below / "hf.co").mkdir()
    for path in (below, *below.rglob("*")):
        path.chmod(0 if path.is_file() or path.name == "hf.co" else 0o755)
    user = os.geteuid()

    with OllamaFolder.opened(ollama.path) as opened:
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            found = list(opened.models())
        finally:
            os.seteuid(user)

    assert found == [Unreadable(where, "cannot be read: Permission denied") for where in ("hf.co", PLACE)]


def test_nothing_goes_below_a_mirror_which_would_give_it_up(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add(PLACE, WEIGHTS)
    ollama.add("hf.co/org/m/latest", WEIGHTS)
    Mirrors(here.store.database).add(parse_mirror("library", "https://registry.example"))

    lines = here.imports(ollama.path, status=1)

    assert lines[1][:2] == ["refused", NAME]
    assert "tonnage mirror remove library" in lines[1][2]
    assert here.tags() == ["hf.co/org/m:latest"]


@pytest.mark.parametrize(
    "parts",
    [
        ("registry.ollama.ai", "library", "m", " latest"),
        ("registry.ollama.ai", "library", "m", "latest\n"),
        ("registry.ollama.ai", "library", "m", "\x1b[2J"),
        ("registry.ollama.ai", "library", "m", "a:b"),
        ("registry.ollama.ai", "library", "m:x", "latest"),
        ("registry.ollama.ai", "library", "m", "x" * 129),
        ("registry.ollama.ai", "li brary", "m", "latest"),
        ("registry.ollama.ai", "_staged", "m", "latest"),
        ("registry.ollama.ai", "name.space", "m", "latest"),
        ("https:", "library", "m", "latest"),
        ("host__5000", "library", "m", "latest"),
        ("hôte", "library", "m", "latest"),
        (os.fsdecode(b"\xff\xfe"), "library", "m", "latest"),
        ("-", "library", "m", "latest"),
    ],
)
def test_a_name_that_cannot_be_is_skipped_in_one_printable_line(
    here: Installation, ollama: OllamaFolderMaker, parts: tuple[str, ...]
) -> None:
    ollama.add("/".join(parts), WEIGHTS)

    lines = here.imports(ollama.path)

    assert [line[0] for line in lines] == ["skipped", lines[-1][0]]
    assert all(part.isprintable() for line in lines for part in line)
    assert here.tags() == []
    assert list(here.store.driver.keys("")) == []


def test_names_that_differ_in_case_alone_are_one_model(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add("hf.co/Org/M/Q4", b"first")
    ollama.add("hf.co/org/m/Q4", b"second")
    ollama.add("hf.co/org/m/q4", b"first")

    lines = here.imports(ollama.path, status=1)

    assert [line[:2] for line in lines[:3]] == [
        ["imported", "hf.co/org/m:Q4"],
        ["refused", "hf.co/org/m:Q4"],
        ["already here", "hf.co/org/m:Q4"],
    ]
    assert here.tags() == ["hf.co/org/m:Q4"]


@pytest.mark.parametrize("missing", ["manifests", "blobs"])
def test_another_folder_is_told_apart(
    here: Installation, ollama: OllamaFolderMaker, tmp_path: Path, missing: str
) -> None:
    shutil.move(ollama.path / missing, tmp_path / "moved")
    (ollama.path / missing).symlink_to(tmp_path / "moved")

    assert "OLLAMA_MODELS" in here.refusal(ollama.path)


def test_a_folder_without_end_is_not_walked_through(
    here: Installation, ollama: OllamaFolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_MAX_ENTRIES", 20)
    for number in range(30):
        ollama.add_manifest(f"{DEFAULT}/m/t{number}", b"{}")

    assert "more than 20 files" in here.refusal(ollama.path)
