"""A migrated database for each test, and folders to import from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.cli import serve
from tests.ollama_folder import OllamaFolderMaker
from tests.ollama_imports import Installation


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(serve, "upgrade", lambda url: None)  # the copied database is of today; half a second saved
    installation = Installation(tmp_path / "data")
    yield installation
    installation.store.database.close()


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaFolderMaker:
    return OllamaFolderMaker(tmp_path / "ollama" / "models")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[OllamaFolderMaker]:
    """On another filesystem."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem")
    with tempfile.TemporaryDirectory(dir=shm) as path:
        yield OllamaFolderMaker(Path(path) / "models")
