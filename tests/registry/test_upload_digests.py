"""What a session tells of the bytes that it holds, and a chunk that replaces itself. Source: RFC 9530."""

import base64
import hashlib
import os

import pytest

DATA = os.urandom(3000)


@pytest.fixture
def session(admin):
    return admin.request("POST", "/v2/digests/m/blobs/uploads/", headers={"Content-Length": "0"})


def send(admin, session, start, end, data=DATA, **headers):
    headers = {"Content-Range": f"{start}-{end - 1}", **headers}
    return admin.request("PATCH", session.headers["Location"], data[start:end], headers)


def told(answer):
    """Offset, and the digest in hexadecimal."""
    name, _, value = answer.headers["Repr-Digest"].partition("=")
    assert name == "sha-256"
    assert value[0] == value[-1] == ":"
    return int(answer.headers["X-Upload-Offset"]), base64.b64decode(value[1:-1]).hex()


def sum_of(data):
    return len(data), hashlib.sha256(data).hexdigest()


def test_every_answer_tells_the_digest_of_what_is_stored(admin, session):
    first = send(admin, session, 0, 1000)
    status = admin.request("GET", session.headers["Location"])
    second = send(admin, session, 1000, 3000)

    assert told(session) == sum_of(b"")
    assert told(first) == told(status) == sum_of(DATA[:1000])
    assert told(second) == sum_of(DATA)


def test_a_session_for_another_algorithm_tells_none(admin):
    opened = admin.request(
        "POST", "/v2/digests/m/blobs/uploads/?digest-algorithm=sha512", headers={"Content-Length": "0"}
    )

    assert "Repr-Digest" not in opened.headers
    assert "Repr-Digest" not in send(admin, opened, 0, 1000).headers


def test_the_last_chunk_replaces_itself_for_a_client_that_says_so(admin, session):
    send(admin, session, 0, 1000)
    send(admin, session, 1000, 2000, DATA[::-1])

    again = send(admin, session, 1000, 2000, **{"X-Upload-Offset": "1000"})

    assert again.status == 202
    assert told(again) == sum_of(DATA[:2000])


@pytest.mark.parametrize(
    ("start", "end", "headers"),
    [
        (1000, 2000, {}),
        (1000, 2000, {"X-Upload-Offset": "2000"}),
        (1000, 1500, {"X-Upload-Offset": "1000"}),
        (0, 1000, {"X-Upload-Offset": "0"}),
    ],
    ids=["unsaid", "elsewhere", "shorter", "earlier"],
)
def test_no_other_chunk_comes_again(admin, session, start, end, headers):
    send(admin, session, 0, 1000)
    send(admin, session, 1000, 2000)

    refused = send(admin, session, start, end, **headers)

    assert (refused.status, refused.headers["X-Upload-Offset"]) == (416, "2000")
