"""Engines on tiny models, and what they are asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.runner.engine import Engine
from runtime.runner.library import Log, Model
from runtime.runner.settings import RunnerSettings
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="session")
def log() -> Log:
    return Log()


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory, log: Log) -> Callable[..., Engine]:
    """An engine on a file, a tiny model of random weights where none is named; keywords are the runner's settings."""
    tiny = write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")

    def load(path: Path = tiny, **settings: Any) -> Engine:
        told = RunnerSettings(
            path=str(path), socket="", **{"context_length": 512, "parallel": 8, "num_thread": 1, **settings}
        )
        return Engine(Model(told, log, lambda _: None), told)

    return load


@pytest.fixture(scope="session")
def engine(load: Callable[..., Engine]) -> Engine:
    return load()
