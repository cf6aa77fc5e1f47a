"""Pushes whose bytes a client sends to the object store itself, part by part or at once."""

from __future__ import annotations

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from migrations.run import upgrade
from registry.app import create_app
from registry.config import Config
from storage.digest import Digest
from storage.drivers.s3 import S3Bucket
from tests.client import MODEL_TYPE, Answer, Client
from tests.ollama_client import LocalStore
from tests.ollama_flows import Push
from tests.ollama_transfer import Transfer
from tests.registry.ollama_world import CONFIG, World
from tests.s3_server import BUCKET, S3Server

PART = 5 * 2**20  # the least that stores take
PARTS = [os.urandom(PART), os.urandom(PART), os.urandom(1000)]
DATA = b"".join(PARTS)
DIGEST = str(Digest.of(DATA))
ASKS = {"X-Redirect-Uploads": "1"}
NOTHING = {"Content-Length": "0"}


def put(address: str, data: bytes) -> int:
    """By whoever has the address. 0 where the store closed the connection in the middle of the body."""
    request = urllib.request.Request(address, data, {"Content-Type": "application/octet-stream"}, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
    except OSError:
        return 0


@dataclass
class Session:
    """An upload session as a client has it that asks where its parts go."""

    client: Client
    location: str

    def patch(self, number: int, data: bytes = b"", **headers: str) -> Answer:
        start, size = number * PART, len(PARTS[number])
        told = {"Content-Range": f"{start}-{start + size - 1}", **ASKS, **headers}
        return self.client.request("PATCH", self.location, data or PARTS[number], told)

    def address(self, number: int) -> str:
        answer = self.patch(number)
        assert (answer.status, answer.body) == (307, b"")
        assert answer.headers["Docker-Upload-Location"] == self.location
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.headers["Location"]

    def commit(self) -> Answer:
        return self.client.request("PUT", f"{self.location}?digest={DIGEST}&etag=x-3", headers=NOTHING)

    def send_all(self) -> list[str]:
        addresses = [self.address(number) for number in range(3)]
        assert [put(address, part) for address, part in zip(addresses, PARTS, strict=True)] == [200, 200, 200]
        return addresses


@pytest.fixture
def session(admin: Client, request: pytest.FixtureRequest) -> Session:
    """In a private repository of its own."""
    path = f"/v2/acme/{request.node.name[:60].replace('[', '-').replace(']', '')}/blobs/uploads/"
    return Session(admin, admin.request("POST", path, headers=NOTHING).headers["Location"])


def blob_path(session: Session) -> str:
    return session.location.removeprefix(f"http://{session.client.host}").partition("/uploads/")[0] + f"/{DIGEST}"


def staged(bucket: S3Bucket) -> set[str]:
    return {found.name for found in bucket.list("staged/")} | {begun.upload for begun in bucket.uploads("")}


@pytest.fixture
def left(bucket: S3Bucket) -> Callable[[], set[str]]:
    """What uploads have left in the bucket since the test began."""
    before = staged(bucket)
    return lambda: staged(bucket) - before


def test_an_ollama_client_sends_sixteen_parts_at_once_to_the_store(world: World, left, tmp_path: Path, monkeypatch):
    weights = os.urandom(16 * PART + 1)
    store = LocalStore(tmp_path / "from")
    store.add_model("acme/large:v1", [(MODEL_TYPE, weights)], CONFIG)
    registry, together, store_part = world.registry(world.owner), threading.Barrier(16), Push._store_part

    def with_the_others(push: Push, url: str, path: Path, part) -> None:
        if part.number < 16:
            together.wait(60)
        store_part(push, url, path, part)

    monkeypatch.setattr(Push, "_store_part", with_the_others)
    Push(registry, store, smallest_part=PART).run("acme/large:v1")

    sent = [each for each in registry.sent if each.method == "PUT" and not each.url.startswith(world.server.url)]
    assert [each.status for each in sent] == [200] * 17
    assert all("Authorization" not in each.header for each in sent)
    pulled = world.pull("acme/large:v1", tmp_path / "to", smallest_part=8 * PART)
    assert pulled.blob(LocalStore(tmp_path / "any").add(weights)).read_bytes() == weights
    assert left() == set()


def test_nobody_can_change_a_blob_by_the_address_of_its_part(session, left):
    addresses = session.send_all()
    assert session.commit().status == 201

    late = [put(address, b"x" * len(part)) for address, part in zip(addresses, PARTS, strict=True)]

    assert late[2] == 404
    assert 200 not in late
    assert session.client.request("GET", blob_path(session)).body == DATA
    assert left() == set()


def test_a_repeated_commit_is_answered_like_the_first(session):
    session.send_all()

    assert [session.commit().status for _ in range(2)] == [201, 201]


def test_a_commit_without_a_length_has_no_body(session):
    session.send_all()
    with closing(HTTPConnection(session.client.host, timeout=60)) as connection:
        connection.putrequest("PUT", f"{session.location}?digest={DIGEST}")
        connection.putheader("Authorization", f"Bearer {session.client.token}")
        connection.endheaders()

        assert connection.getresponse().status == 201


def test_wrong_bytes_are_refused_and_gone(session, left):
    addresses = session.send_all()
    assert put(addresses[1], b"x" * PART) == 200

    refused = session.commit()

    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert session.client.request("GET", session.location).status == 404
    assert session.client.request("HEAD", blob_path(session)).status == 404
    assert put(addresses[2], PARTS[2]) == 404
    assert left() == set()


def test_a_missing_part_is_named_and_the_session_goes_on(session):
    addresses = [session.address(number) for number in range(3)]
    assert [put(addresses[number], PARTS[number]) for number in (0, 2)] == [200, 200]

    refused = session.commit()

    assert (refused.status, refused.code) == (400, "SIZE_INVALID")
    assert refused.json["errors"][0]["detail"] == {"parts": [2]}
    assert put(addresses[1], PARTS[1]) == 200
    assert session.commit().status == 201


def test_a_part_of_another_size_is_refused_by_the_store(session):
    address = session.address(0)

    assert put(address, b"x" * 1000) == 403
    assert put(address, b"x" * (PART + 1)) != 200


def test_a_part_whose_answer_was_lost_is_asked_for_again(session):
    lost, address = session.address(0), session.address(0)

    assert [put(lost, b"x" * PART), put(address, PARTS[0])] == [200, 200]
    for number in (1, 2):
        assert put(session.address(number), PARTS[number]) == 200
    assert session.commit().status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Redirect-Uploads": "0"},  # from now on through us
        {"Content-Range": f"{2 * PART}-{3 * PART - 1}"},  # a gap
        {"Content-Range": f"1000-{PART + 999}"},  # an overlap
    ],
)
def test_what_does_not_fit_a_direct_session_is_refused(session, headers):
    session.address(0)

    refused = session.patch(1, **headers)

    assert (refused.status, refused.code) == (416, "BLOB_UPLOAD_INVALID")
    assert refused.headers["Location"] == session.location


@pytest.mark.parametrize(
    ("number", "headers"),
    [
        (0, {"X-Redirect-Uploads": "0"}),  # does not ask
        (0, {"Content-Range": "bytes=0-1"}),  # another size than it says
        (2, {"Content-Range": "0-999"}),  # too little
    ],
)
def test_other_chunks_come_to_us(session, bucket, left, number, headers):
    assert session.patch(number, **headers).status in (202, 400)
    assert [begun for begun in bucket.uploads("") if begun.upload in left()] == []


def test_a_session_that_began_with_us_ends_with_us(session):
    assert session.patch(0, **{"X-Redirect-Uploads": "0"}).status == 202

    assert [session.patch(number).status for number in (1, 2)] == [202, 202]
    assert session.commit().status == 201


def test_a_session_that_is_given_up_ends_its_addresses(session, left):
    address = [session.address(number) for number in range(3)][2]

    assert session.client.request("DELETE", session.location).status == 204

    assert put(address, PARTS[2]) == 404
    assert left() == set()


def test_nobody_is_told_an_address_who_may_not_push(session, left):
    stranger = Session(Client(session.client.host), session.location)

    assert stranger.patch(0, b"x").status == 401
    assert left() == set()


def test_the_answer_comes_before_the_body_does(session):
    """And what the client sends until it sees that breaks nothing."""
    host, _, port = session.client.host.partition(":")
    size = 64 * 2**20
    path = session.location.removeprefix(f"http://{session.client.host}")
    head = f"PATCH {path} HTTP/1.1\r\nHost: {session.client.host}\r\nContent-Length: {size}\r\n"
    told = f"Authorization: Bearer {session.client.token}\r\nContent-Range: 0-{size - 1}\r\nX-Redirect-Uploads: 1\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}{told}\r\n".encode() + b"x" * 1000)

        assert connection.recv(64 * 2**10).startswith(b"HTTP/1.1 307 ")
        connection.sendall(bytes(32 * 2**20))


def test_a_transfer_client_sends_a_blob_at_once(world: World, left):
    transfer = Transfer(world.server.url, world.server.admin_token)
    opened = transfer.open_session("acme/whole", DIGEST, len(DATA))
    assert opened.status == 202

    assert transfer.send_whole(opened, b"x" * len(DATA)).status == 400  # the store looks at the sum
    assert transfer.send_whole(opened, DATA).status == 200
    assert transfer.commit(opened, DIGEST).status == 201

    assert transfer.send_whole(opened, DATA).status == 404
    assert transfer.pull_blob("acme/whole", DIGEST) == DATA
    assert transfer.open_session("acme/whole", DIGEST, len(DATA)).status == 201
    assert left() == set()


@pytest.mark.parametrize("size", [PART - 1, 5 * 2**30 + 1])
def test_a_blob_that_is_no_part_comes_to_us(world: World, size):
    opened = Transfer(world.server.url, world.server.admin_token).open_session("acme/other", DIGEST, size)

    assert opened.status == 202
    assert "X-Direct-Upload-URL" not in opened.headers


def test_nobody_is_sent_to_the_store_unless_that_is_switched_on(s3: S3Server, tmp_path: Path):
    url = f"sqlite:///{tmp_path}/t.db"
    upgrade(url)
    bucket = {"storage": "s3", "s3_bucket": BUCKET, "s3_prefix": "off/", "s3_endpoint": s3.endpoint}
    client = create_app(Config(data=str(tmp_path), database_url=url, access="open", **bucket)).test_client()
    location = client.post("/v2/a/b/blobs/uploads/").headers["Location"]

    part = client.patch(location, data=PARTS[0], headers={**ASKS, "Content-Range": f"0-{PART - 1}"})
    whole = client.post(
        f"/v2/a/b/blobs/uploads/?digest={DIGEST}",
        headers={"X-Redirect-Uploads": "2", "X-Content-Length": str(len(DATA))},
    )

    assert (part.status_code, whole.status_code) == (202, 202)
    assert "X-Direct-Upload-URL" not in whole.headers
