"""GET /v2/<name>/chunksums/<digest>: what a client checks the chunks of a blob by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from storage import chunk_sums
from storage.digest import Digest
from storage.reference import RepositoryName
from tests.client import Client
from tests.databases import url_of
from tests.server import Server

MIB = 2**20
DATA = os.urandom(8 * MIB + 5)
SUMS = f"{Digest.of(DATA[: 8 * MIB])} 0-{8 * MIB - 1}\n{Digest.of(DATA[8 * MIB :])} {8 * MIB}-{8 * MIB + 4}\n"


def test_the_sums_come_with_an_address_that_needs_no_credentials(
    shared_server: Server, admin: Client, stranger: Client
) -> None:
    digest = admin.push_blob("sums/private", DATA)

    first, again = (admin.request("GET", f"/v2/sums/private/chunksums/{digest}") for _ in range(2))

    assert (first.status, first.body.decode()) == (200, SUMS)
    assert (again.status, again.body) == (200, first.body)
    address = first.headers["Content-Location"]
    path = f"/v2/sums/private/blobs/{digest}"
    assert address.startswith(f"{shared_server.url}{path}?")
    chunk = stranger.request("GET", address.removeprefix(shared_server.url), headers={"Range": f"bytes={8 * MIB}-"})
    assert (chunk.status, chunk.body) == (206, DATA[8 * MIB :])
    assert stranger.request("GET", f"/v2/sums/private/chunksums/{digest}").status == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"sums/private/chunksums/{Digest.of(b'never pushed')}", 404, "BLOB_UNKNOWN"),
        ("GET", "sums/private/chunksums/none", 404, "BLOB_UNKNOWN"),
        ("GET", f"sums/nowhere/chunksums/{Digest.of(DATA)}", 404, "NAME_UNKNOWN"),
        ("POST", f"sums/private/chunksums/{Digest.of(DATA)}", 405, "UNSUPPORTED"),
    ],
)
def test_what_there_is_not_is_said_as_of_blobs(admin: Client, method: str, path: str, status: int, code: str) -> None:
    admin.push_blob("sums/private", b"here")

    answer = admin.request(method, f"/v2/{path}")

    assert (answer.status, answer.code) == (status, code)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(chunk_sums, "CHUNK_BYTES", 10)
    url = url_of(tmp_path)
    upgrade(url)
    return create_app(Config(data=str(tmp_path), database_url=url, access="open"))


@pytest.fixture
def web(app: Flask) -> FlaskClient:
    return app.test_client()


def sums_of(app: Flask, data: bytes) -> str:
    app.extensions["tonnage.store"].blobs.put(RepositoryName("a/m"), data)
    return f"/v2/a/m/chunksums/{Digest.of(data)}"


def test_two_blobs_are_read_at_once_and_who_comes_third_is_told_to_wait(app: Flask, web: FlaskClient) -> None:
    paths = [sums_of(app, bytes([each]) * 25) for each in range(3)]
    under_way = [web.get(path) for path in paths[:2]]
    lines = [answer.iter_encoded() for answer in under_way]
    assert [next(iter(each)).split()[1] for each in lines] == [b"0-9", b"0-9"]

    third = web.get(paths[2])

    assert third.status_code == 503
    assert third.json is not None
    assert third.json["errors"][0]["code"] == "UNAVAILABLE"
    assert int(third.headers["Retry-After"]) > 0
    under_way[0].close()  # its client left
    assert web.get(paths[2]).text.count("\n") == 3
    under_way[1].close()


def test_who_leaves_early_leaves_nothing_and_no_place_taken(app: Flask, web: FlaskClient) -> None:
    path = sums_of(app, b"x" * 25)
    for _ in range(3):
        answer = web.get(path)
        next(iter(answer.iter_encoded()))
        answer.close()
    unread = web.get(path)
    unread.close()

    assert web.get(path).text.count("\n") == 3


def test_what_is_known_is_told_while_others_are_computed(app: Flask, web: FlaskClient) -> None:
    known, *others = (sums_of(app, bytes([each]) * 25) for each in range(3))
    first = web.get(known).text
    under_way = [web.get(path) for path in others]

    assert web.get(known).text == first

    for each in under_way:
        each.close()
