"""What FROM, ADAPTER and DRAFT mean on the machine that a Modelfile lies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.cli.sources import find_sources
from registry.remotes.errors import LocalFileUnfit
from runtime.modelfile import parse

GGUF = b"GGUF" + bytes(20)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Modelfile's folder: files that begin as GGUF files do, and some that do not."""
    home = tmp_path / "home"
    for name in ("a.gguf", "b.gguf", "parts/x-00002-of-00002.gguf", "parts/x-00001-of-00002.gguf", "more/a.gguf",
                 "named-bin/w.bin", "both/w.gguf", "llama3", "home/own.gguf"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(GGUF)
    for name in ("notes.txt", "w.safetensors", "raw/model-1.safetensors", "below/unet/model.safetensors", "torch/w.bin",
                 "torch/pytorch_model.bin", "both/model.safetensors", "liar/w.gguf"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"something else")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.gguf").symlink_to("llama3")
    monkeypatch.setenv("HOME", str(home))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("FROM a.gguf", {"a.gguf": "a.gguf"}),
        ("FROM ./a.gguf", {"a.gguf": "a.gguf"}),
        ("FROM parts/../a.gguf", {"a.gguf": "a.gguf"}),
        ("FROM {}/a.gguf", {"a.gguf": "a.gguf"}),
        ("FROM ~/own.gguf", {"own.gguf": "home/own.gguf"}),
        ("FROM llama3", {"llama3": "llama3"}),
        ("FROM link.gguf", {"link.gguf": "link.gguf"}),
        ("FROM a.gguf\nFROM b.gguf", {"a.gguf": "a.gguf", "b.gguf": "b.gguf"}),
        ("FROM a.gguf\nFROM more/a.gguf", {"a.gguf": "a.gguf", "more/a.gguf": "more/a.gguf"}),
        ("FROM a.gguf\nFROM ./a.gguf", {"a.gguf": "a.gguf"}),
        ("FROM parts", {f"x-0000{n}-of-00002.gguf": f"parts/x-0000{n}-of-00002.gguf" for n in (1, 2)}),
        ("FROM ./parts/", {f"x-0000{n}-of-00002.gguf": f"parts/x-0000{n}-of-00002.gguf" for n in (1, 2)}),
        ("FROM named-bin", {"w.bin": "named-bin/w.bin"}),
        ("FROM both", {"w.gguf": "both/w.gguf"}),
        ("FROM .", {"a.gguf": "a.gguf", "b.gguf": "b.gguf", "link.gguf": "link.gguf"}),
    ],
)
def test_files(folder: Path, text: str, files: dict[str, str]) -> None:
    found = find_sources(parse(text.format(folder)), folder)

    assert found.name == ""
    assert found.files == {key: folder / path for key, path in files.items()}


@pytest.mark.parametrize("name", ["tiny", "acme/tiny:v1", "hf.co/org/model:Q4_K_M", "http://host:5000/a/b", "c.gguf"])
def test_what_is_no_file_is_a_stored_model(folder: Path, name: str) -> None:
    found = find_sources(parse(f"FROM {name}"), folder)

    assert (found.name, found.files) == (name, {})


def test_adapters_and_draft(folder: Path) -> None:
    found = find_sources(parse("FROM tiny\nADAPTER a.gguf\nADAPTER more/a.gguf\nDRAFT b.gguf"), folder)

    assert found.adapters == {"a.gguf": folder / "a.gguf", "more/a.gguf": folder / "more" / "a.gguf"}
    assert found.draft == {"b.gguf": folder / "b.gguf"}
    assert set(found.paths) == {folder / "a.gguf", folder / "more" / "a.gguf", folder / "b.gguf"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM ./nowhere.gguf", "there is no such file"),
        ("FROM /nowhere/a.gguf", "there is no such file"),
        ("FROM @sha256:abc", "there is no such file"),
        (f"FROM {'x' * 300}", "there is no such file"),
        ("FROM ~nobody-here/a", "no such home"),
        ("FROM notes.txt", "not a GGUF file"),
        ("FROM liar", "not a GGUF file"),
        ("FROM w.safetensors", "make a GGUF file of them first"),
        ("FROM raw", "make a GGUF file of them first"),
        ("FROM below", "make a GGUF file of them first"),
        ("FROM torch", "make a GGUF file of them first"),
        ("FROM empty", "no Modelfile or GGUF files found in "),
        ("FROM tiny\nFROM other", "one or the other"),
        ("FROM tiny\nFROM a.gguf", "one or the other"),
        ("FROM a.gguf\nDRAFT ./a.gguf", "DRAFT names the same file as FROM"),
    ],
)
def test_refusals(folder: Path, text: str, words: str) -> None:
    with pytest.raises(LocalFileUnfit, match=words) as refused:
        find_sources(parse(text), folder)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", ["ADAPTER", "DRAFT"])
def test_an_addition_is_always_a_file(folder: Path, command: str) -> None:
    with pytest.raises(FileNotFoundError):
        find_sources(parse(f"FROM tiny\n{command} nowhere.gguf"), folder)
