"""Two servers for the official clients: one with models, and an empty one that it may pull from and push to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from demo import smollm2
from tests.registry.official_ollama.clients import ByItself, InALoop, OfficialClient
from tests.registry.ollama_api.world import Api, serve
from tests.registry.test_sense import CALLING_TEMPLATE
from tests.server import running_server

_NUMBERS = count()


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_server(tmp_path_factory.mktemp("far") / "data", {"TONNAGE_ACCESS": "open"}) as server:
        yield Api(server)


@pytest.fixture(scope="session")
def near(tmp_path_factory: pytest.TempPathFactory, far: Api) -> Iterator[Api]:
    """One answer at a time from each model, so that one that goes on keeps the next from beginning."""
    limits = {"OLLAMA_MAX_LOADED_MODELS": "8", "OLLAMA_NUM_PARALLEL": "1"}
    with serve(tmp_path_factory.mktemp("near"), {"TONNAGE_ALLOWED_HOSTS": far.server.host, **limits}) as api:
        layer = {"application/vnd.ollama.image.template": CALLING_TEMPLATE}
        api.admin.push_model("library/smollm2", "calling", smollm2.fetch(), layer)
        yield api


@pytest.fixture(scope="session", params=[ByItself, InALoop], ids=["Client", "AsyncClient"])
def client(request: pytest.FixtureRequest, near: Api) -> Iterator[OfficialClient]:
    opened: OfficialClient = request.param(near.server)
    yield opened
    opened.end()


@pytest.fixture
def away(far: Api) -> str:
    """The name of a model on the far server that nobody else uses."""
    return f"{far.server.host}/acme/m{next(_NUMBERS)}:v1"
