"""A store that has too much to do, or whose answers go wrong: what clients are told, and what is stored in the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest
from botocore.retries import standard
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from registry.app import create_app
from registry.config import Config
from storage.drivers import s3 as door
from tests.databases import migrated
from tests.hostile_s3 import BUCKET, Fault, HostileS3, hostile_s3
from tests.s3_server import KEYS

UPLOADS = "/v2/team/model/blobs/uploads/"
SHORT, LONG = 4096, 9 * 2**20  # an object, and an upload of two parts


@pytest.fixture(scope="module")
def server() -> Iterator[HostileS3]:
    with pytest.MonkeyPatch.context() as patch, hostile_s3() as server:
        patch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.0)
        for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        forget_clients()
        yield server
    forget_clients()


def forget_clients() -> None:
    door._client.cache_clear()
    door._session.cache_clear()


@pytest.fixture
def store(server: HostileS3) -> HostileS3:
    server.forget()
    return server


@pytest.fixture(scope="module")
def client(server: HostileS3, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    data = tmp_path_factory.mktemp("slow")
    told = {"storage": "s3", "s3_bucket": BUCKET, "s3_endpoint": server.endpoint, "s3_redirect": "never"}
    app = create_app(Config(data=str(data), database_url=migrated(data), access="open", **told))  # type: ignore[arg-type]
    return app.test_client()


@pytest.fixture
def short() -> bytes:
    return os.urandom(SHORT)


@pytest.fixture
def long() -> bytes:
    return os.urandom(LONG)


def push(client: FlaskClient, data: bytes) -> TestResponse:
    location = client.post(UPLOADS).headers["Location"]
    return client.put(f"{location}?digest={digest_of(data)}", data=data)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pull(client: FlaskClient, data: bytes) -> TestResponse:
    return client.get(f"/v2/team/model/blobs/{digest_of(data)}")


@pytest.mark.parametrize(("kind", "size"), [("put", SHORT), ("begin", LONG), ("part", LONG), ("complete", LONG)])
def test_a_push_into_a_store_that_only_says_slow_down_is_503_and_succeeds_later(client, store, kind, size):
    data = os.urandom(size)
    store.always[kind] = Fault.SLOW_DOWN

    refused = push(client, data)

    assert refused.status_code == 503, refused.text
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json["errors"][0]["code"] == "UNAVAILABLE"
    assert 1 < store.asked[kind] < 20
    assert pull(client, data).status_code == 404
    store.always.clear()
    assert push(client, data).status_code == 201
    assert pull(client, data).data == data


def test_a_pull_from_a_store_that_only_says_slow_down_is_503(client, store, short):
    push(client, short)
    store.always = {"get": Fault.SLOW_DOWN, "head": Fault.SLOW_DOWN}

    refused = pull(client, short)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("kind", ["put", "begin", "part", "complete"])
@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.LOST])
def test_what_goes_wrong_twice_is_tried_again(client, store, kind, fault):
    data = os.urandom(SHORT if kind == "put" else LONG)
    store.faults[kind] = [fault, fault]

    assert push(client, data).status_code == 201

    assert store.asked[kind] >= 3 if fault is Fault.SLOW_DOWN or kind != "complete" else store.asked["head"] == 2
    assert pull(client, data).data == data


def test_a_completing_that_fails_after_its_status_was_sent_is_tried_again(client, store, long):
    store.faults["complete"] = [Fault.ERROR_IN_200]

    assert push(client, long).status_code == 201

    assert store.asked["complete"] == 2
    assert pull(client, long).data == long


def test_a_completing_that_always_fails_after_its_status_was_sent_is_503(client, store, long):
    store.always["complete"] = Fault.ERROR_IN_200

    refused = push(client, long)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert pull(client, long).status_code == 404


def test_a_completing_whose_answer_was_lost_is_found_to_have_been_done(client, store, long):
    store.faults["complete"] = [Fault.LOST]

    assert push(client, long).status_code == 201

    assert (store.asked["complete"], store.asked["head"]) == (2, 2)
    assert store.bucket.calls["put_part"] == 2
    assert pull(client, long).data == long
