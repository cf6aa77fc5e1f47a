"""Whether downloads go to the object store at all, as the operator says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from storage.reference import RepositoryName
from tests.registry.direct.conftest import DATA
from tests.s3_server import BUCKET, S3Server

CURL, PROBE, DOCKER = "curl/8.5.0", "ollama/0.33.0 (amd64 linux) Go/go1.26.0", "docker/26.1.3"


@pytest.fixture(scope="module")
def config(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, str]]:
    """Of a server with a blob, and where that is."""
    folder: Path = tmp_path_factory.mktemp("modes")
    url = f"sqlite:///{folder}/t.db"
    upgrade(url)
    config = Config(
        data=str(folder),
        database_url=url,
        access="open",
        storage="s3",
        s3_bucket=BUCKET,
        s3_prefix="modes/",
        s3_endpoint=s3.endpoint,
        s3_redirect_bytes=2**10,
    )
    app = create_app(config)
    digest = app.extensions["tonnage.store"].blobs.put(RepositoryName("team/model"), DATA).digest
    yield config, f"/v2/team/model/blobs/{digest}"


@pytest.mark.parametrize(
    ("mode", "has_public", "agent", "status"),
    [
        ("always", False, CURL, 307),
        ("always", False, PROBE, 200),  # it would keep the address for hours
        ("auto", True, CURL, 200),
        ("auto", True, DOCKER, 307),
        ("auto", False, DOCKER, 200),  # nobody says that clients reach the store
        ("never", True, DOCKER, 200),
    ],
)
def test_the_operator_decides_who_is_sent_on(config, mode, has_public, agent, status):
    told, path = config
    public = told.s3_endpoint if has_public else ""
    client = create_app(replace(told, s3_redirect=mode, s3_public_endpoint=public)).test_client()

    answer = client.get(path, headers={"User-Agent": agent})

    assert answer.status_code == status
    assert answer.data == (DATA if status == 200 else b"")
