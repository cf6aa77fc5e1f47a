"""Refusals of who asks for a part of a blob: the ollama client looks at no status, and keeps what comes as bytes.

Source: the Ollama registry protocol, "Parts".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from registry.mirror.mirrors import Mirrors, parse_mirror
from registry.remotes.errors import UpstreamBusy
from storage.db import Database
from storage.digest import Digest
from storage.reference import RepositoryName, Tag
from tests.databases import url_of

HERE, ABSENT = b"here", b"absent"
PART = {"Range": "bytes=0-9", "User-Agent": "Go-http-client/1.1"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """`near/m` has a blob; `far/m` is a mirror's and lists one that has not come, for which nobody can wait here."""
    folder: Path = tmp_path_factory.mktemp("parts")
    url = url_of(folder)
    upgrade(url)
    Mirrors(Database(url)).add(parse_mirror("far", "http://127.0.0.1:1"))
    app = create_app(Config(data=str(folder), database_url=url, access="open"))
    store = app.extensions["tonnage.store"]
    store.blobs.put(RepositoryName("near/m"), HERE)
    listed = {"mediaType": "application/x", "digest": str(Digest.of(ABSENT)), "size": len(ABSENT)}
    manifest = json.dumps({"schemaVersion": 2, "config": listed, "layers": []}).encode()
    store.repositories.put_manifest(RepositoryName("far/m"), Tag("v1"), manifest, allow_sparse=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(app.extensions["tonnage.mirroring"].room_to_wait())
            except UpstreamBusy:
                break
        yield app.test_client()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"near/m/blobs/{Digest.of(ABSENT)}", {}, 404),
        (f"nowhere/m/blobs/{Digest.of(HERE)}", {}, 404),
        ("near/m/blobs/sha256:none", {}, 404),
        (f"near/m/blobs/{Digest.of(HERE)}", {"If-Match": '"another"'}, 412),
        (f"far/m/blobs/{Digest.of(ABSENT)}", {}, 503),
    ],
)
def test_a_part_that_is_refused_has_no_body_and_all_else(
    web: FlaskClient, path: str, headers: dict[str, str], status: int
) -> None:
    whole, part = (web.get(f"/v2/{path}", headers=headers | more) for more in ({}, PART))

    assert (part.status_code, part.data) == (status, b"")
    assert whole.status_code == status
    assert whole.json["errors"]
    assert {name for name, _ in whole.headers} == {name for name, _ in part.headers}


def test_a_range_without_a_byte_is_told_why(web: FlaskClient) -> None:
    answer = web.get(f"/v2/near/m/blobs/{Digest.of(HERE)}", headers={**PART, "Range": "bytes=9-"})

    assert (answer.status_code, answer.json["errors"][0]["code"]) == (416, "RANGE_INVALID")


def test_other_clients_are_told_why(web: FlaskClient) -> None:
    answer = web.get(f"/v2/near/m/blobs/{Digest.of(ABSENT)}", headers={"Range": "bytes=0-9"})

    assert (answer.status_code, answer.json["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_range_of_what_is_no_blob_changes_nothing(web: FlaskClient) -> None:
    answer = web.get("/v2/near/m/manifests/none", headers=PART)

    assert answer.json["errors"][0]["code"] == "MANIFEST_UNKNOWN"
