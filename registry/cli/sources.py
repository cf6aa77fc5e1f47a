"""What the arguments of a Modelfile name on this machine. Source: the Ollama API, "create"."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry.remotes.errors import LocalFileUnfit
from registry.remotes.text import one_line
from runtime.gguf import MAGIC
from runtime.modelfile import Modelfile
from storage.errors import NameInvalid
from storage.reference import ModelName

_MOST_FILES: Final = 1000
_TO_CONVERT: Final = ("model*.safetensors", "*/model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.pth")
_NO_CONVERSION: Final = "weights are not converted here; make a GGUF file of them first"


@dataclass(frozen=True, slots=True)
class Sources:
    """name: of the stored model to start from, or "". The others: files here, by the path that the server is told."""

    name: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    adapters: dict[str, Path] = field(default_factory=dict)
    draft: dict[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        return [*self.files.values(), *self.adapters.values(), *self.draft.values()]


def find_sources(modelfile: Modelfile, folder: Path) -> Sources:
    """FROM names a file or a folder where there is one, else a stored model; relative paths begin at `folder`.

    Raises LocalFileUnfit.
    """
    names = [source for source in modelfile.sources if not _exists(_path(source, folder))]
    files = [path for source in modelfile.sources if source not in names for path in _ggufs(_path(source, folder))]
    for name in names:
        _check_name(name)
    if len(names) > 1 or (names and files):
        raise LocalFileUnfit("FROM names a stored model and something else; a model is made of one or the other")
    draft = [_path(modelfile.draft, folder)] if modelfile.draft else []
    if any(_is_same(path, other) for path in draft for other in files):
        raise LocalFileUnfit("DRAFT names the same file as FROM")
    return Sources(
        name="".join(names),
        files=_keyed(files),
        adapters=_keyed(path for adapter in modelfile.adapters for path in _ggufs(_path(adapter, folder))),
        draft=_keyed(gguf for path in draft for gguf in _ggufs(path)),
    )


def _path(argument: str, folder: Path) -> Path:
    try:
        return folder / Path(argument).expanduser()
    except RuntimeError:
        raise LocalFileUnfit(f"{one_line(argument)}: there is no such home directory") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file may still be too long for a model, and is then refused as one
        return False


def _is_same(path: Path, other: Path) -> bool:
    return _exists(path) and path.samefile(other)


def _check_name(name: str) -> None:
    try:
        ModelName.parse(name)
    except NameInvalid:
        raise LocalFileUnfit(f"FROM {one_line(name)}: there is no such file, and no model can have that name") from None


def _ggufs(path: Path) -> list[Path]:
    """The file itself, or those in the folder. Raises LocalFileUnfit, OSError."""
    if not path.is_dir():
        if path.suffix == ".safetensors":
            raise LocalFileUnfit(f"{path}: {_NO_CONVERSION}")
        if not _is_gguf(path):
            raise LocalFileUnfit(f"{path} is not a GGUF file")
        return [path]
    found = sorted(path.glob("*.gguf")) or [each for each in sorted(path.glob("*.bin")) if _is_gguf(each)]
    if len(found) > _MOST_FILES:
        raise LocalFileUnfit(f"{path} holds more than {_MOST_FILES} GGUF files")
    if found:
        return [gguf for each in found for gguf in _ggufs(each) if not each.is_dir()]
    if any(True for pattern in _TO_CONVERT for _ in path.glob(pattern)):
        raise LocalFileUnfit(f"{path}: {_NO_CONVERSION}")
    raise LocalFileUnfit(f"no Modelfile or GGUF files found in {path}")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _keyed(paths: Iterable[Path]) -> dict[str, Path]:
    """By their slash paths below the folder they share; a single one by its name."""
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100  # a link keeps its own name
    if not absolute:
        return {}
    shared = os.path.commonpath([path.parent for path in absolute])
    return {path.relative_to(shared).as_posix(): path for path in absolute}
