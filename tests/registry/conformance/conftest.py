"""The servers that the conformance tests run against: open, with tokens, and one that takes sparse pushes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.registry.conformance.wire import Registry
from tests.server import running_server

_SMALL = {"TONNAGE_THREADS": "16"}
_numbers = count()


@pytest.fixture(scope="session", params=["open", "keyed"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    data = tmp_path_factory.mktemp(request.param) / "data"
    with running_server(data, {**_SMALL, "TONNAGE_ACCESS": request.param}) as server:
        yield Registry(server.host, server.admin_token if request.param == "keyed" else "")


@pytest.fixture(scope="session")
def sparse_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    data = tmp_path_factory.mktemp("sparse") / "data"
    with running_server(data, {**_SMALL, "TONNAGE_ACCESS": "open", "TONNAGE_ALLOW_SPARSE": "1"}) as server:
        yield Registry(server.host)


@pytest.fixture
def repository() -> str:
    """The name of a repository that no other test knows; it is not there yet."""
    return f"conformance/repo{next(_numbers)}"


@pytest.fixture
def other_repository() -> str:
    return f"conformance/other{next(_numbers)}"
