"""Servers that the tests of this folder share: each leaves the same models in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.ollama_api.world import Api, serve
from tests.server import wait_for


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One model at a time, one answer at a time, one request in line; and whoever asks may push."""
    limits = {"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_QUEUE": "1"}
    with serve(tmp_path_factory.mktemp("narrow"), {"TONNAGE_ACCESS": "open", **limits}) as api:
        yield api


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory, narrow: Api) -> Iterator[Api]:
    """Room for several models, with a window that is soon full; it may pull from the narrow one, and push to it."""
    limits = {"OLLAMA_MAX_LOADED_MODELS": "4", "OLLAMA_NUM_PARALLEL": "2", "OLLAMA_CONTEXT_LENGTH": "512"}
    with serve(tmp_path_factory.mktemp("roomy"), {"TONNAGE_ALLOWED_HOSTS": narrow.server.host, **limits}) as api:
        yield api


@pytest.fixture
def idle(api: Api) -> Api:
    """The roomy server with nothing loaded."""
    api.unload_all()
    wait_for(lambda: not api.runners(), 10, "the runners to end")
    return api
