"""A server whose bytes are in a bucket, and another node of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.client import Client
from tests.databases import url_of
from tests.s3_server import BUCKET, S3Server, s3_server
from tests.server import ROOT, running_server

DATA = os.urandom(20 * 2**20)  # a part and a tail
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
UPLOADS, BLOB = "/v2/team/model/blobs/uploads/", f"/v2/team/model/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def environ(s3: S3Server) -> dict[str, str]:
    told = {"TONNAGE_STORAGE": "s3", "TONNAGE_S3_BUCKET": BUCKET, "TONNAGE_S3_ENDPOINT": s3.endpoint}
    return {**s3.environ, **told, "TONNAGE_ACCESS": "open", "TONNAGE_WORKERS": "1"}


def test_another_node_finishes_what_a_killed_one_began(environ, tmp_path):
    shared = environ | {"TONNAGE_DATABASE_URL": url_of(tmp_path)}
    with running_server(tmp_path / "one", shared) as one:
        location = Client(one.host).request("POST", UPLOADS, headers={"Content-Length": "0"}).headers["Location"]
        assert Client(one.host).request("PATCH", location, DATA[: 18 * 2**20]).status == 202
        one.kill()

    with running_server(tmp_path / "other", shared) as other:
        node = Client(other.host)
        assert node.request("PATCH", location, DATA[18 * 2**20 :]).status == 202
        done = node.request("PUT", f"{location}?digest={DIGEST}", headers={"Content-Length": "0"})
        assert done.status == 201, done.body

        assert node.request("GET", BLOB).body == DATA
        part = node.request("GET", BLOB, headers={"Range": "bytes=16777000-16778000"})
        assert (part.status, part.body) == (206, DATA[16777000:16778001])
    assert [path for path in tmp_path.rglob("*") if path.stat().st_size > 2**20 and path.is_file()] == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"TONNAGE_S3_BUCKET": "nowhere"}, "tonnage: the bucket nowhere at http://127.0.0.1:"),
        ({"TONNAGE_S3_ENDPOINT": "127.0.0.1:9"}, "tonnage: TONNAGE_S3_ENDPOINT must be"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(environ, tmp_path, changed, line):
    told = {**os.environ, **environ, "TONNAGE_DATA": str(tmp_path / "data"), **changed}

    serve = [sys.executable, "-m", "registry", "serve"]
    finished = subprocess.run(serve, env=told, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert finished.returncode == 1
    assert finished.stderr.startswith(line)
    assert finished.stderr.count("\n") == 1
