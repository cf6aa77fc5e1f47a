"""The servers that the conformance tests run against: open, with tokens, and those that take sparse pushes.

Those that share nothing but a database and a bucket behave as one on a laptop; TONNAGE_TEST_BACKENDS=all shows it of
every pair of backends, open and with tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from tests.backends import backends
from tests.registry.conformance.wire import Registry
from tests.server import running_server

# a single connection: whoever holds it and wanted another one would wait in vain
_SMALL = {"TONNAGE_THREADS": "16", "TONNAGE_DATABASE_CONNECTIONS": "1"}
_numbers = count()

_LAPTOP, _NODE = ("sqlite", "filesystem"), ("postgresql", "s3")
_ALL = [(database, storage) for database in ("sqlite", "postgresql") for storage in ("filesystem", "s3")]
_ARE_ALL = os.environ.get("TONNAGE_TEST_BACKENDS") == "all"
_SERVERS = (
    [(access, *pair) for pair in _ALL for access in ("open", "keyed")]
    if _ARE_ALL
    else [("open", *_LAPTOP), ("keyed", *_LAPTOP), ("keyed", *_NODE)]
)


@pytest.fixture(scope="session", params=_SERVERS, ids="-".join)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    access, database, storage = request.param
    data = tmp_path_factory.mktemp(access) / "data"
    with (
        backends(data, database, storage) as told,
        running_server(data, {**_SMALL, **told, "TONNAGE_ACCESS": access}) as server,
    ):
        yield Registry(server.host, server.admin_token if access == "keyed" else "")


@pytest.fixture(scope="session", params=_ALL if _ARE_ALL else [_LAPTOP, _NODE], ids="-".join)
def sparse_registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    data = tmp_path_factory.mktemp("sparse") / "data"
    with (
        backends(data, *request.param) as told,
        running_server(data, {**_SMALL, **told, "TONNAGE_ACCESS": "open", "TONNAGE_ALLOW_SPARSE": "1"}) as server,
    ):
        yield Registry(server.host)


@pytest.fixture
def repository() -> str:
    """The name of a repository that no other test knows; it is not there yet."""
    return f"conformance/repo{next(_numbers)}"


@pytest.fixture
def other_repository() -> str:
    return f"conformance/other{next(_numbers)}"
