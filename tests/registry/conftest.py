"""Real servers for the registry's tests; one is shared where a test leaves nothing behind that could hurt another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client
from tests.server import Server, running_server
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model that says nothing sensible, and loads at once."""
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def admin(shared_server: Server) -> Client:
    return Client(shared_server.host, shared_server.admin_token)


@pytest.fixture(scope="session")
def stranger(shared_server: Server) -> Client:
    return Client(shared_server.host)


@pytest.fixture(scope="session")
def tiny_model(admin: Client, tiny_gguf: Path) -> str:
    """The name of a stored model that runs."""
    admin.push_model("shared/tiny", "latest", tiny_gguf)
    return "shared/tiny:latest"
