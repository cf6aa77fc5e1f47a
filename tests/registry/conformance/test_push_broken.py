"""Uploads that break in the middle, come twice, or meet each other."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import pytest

from tests.registry.conformance.wire import Registry, digest_of
from tests.server import wait_for

DATA = os.urandom(300_000)
SENT = 100_000


def begin_patch(registry: Registry, location: str, *, announced: int, chunk: str = "") -> socket.socket:
    """A PATCH on a raw socket: all of its head, and the first SENT bytes of its body."""
    host, _, port = registry.host.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = [f"PATCH {urlsplit(location).path} HTTP/1.1", f"Host: {registry.host}", f"Content-Length: {announced}"]
    head += [f"Content-Range: {chunk}"] if chunk else []
    repository = location.partition("/v2/")[2].partition("/blobs/")[0]
    if token := registry.token_of(repository):
        head.append(f"Authorization: Bearer {token}")
    connection.sendall("\r\n".join([*head, "", ""]).encode() + DATA[:SENT])
    return connection


def offset(registry: Registry, location: str) -> int:
    answer = registry.get(location)
    assert answer.status == 204
    return int(answer.headers["X-Upload-Offset"])


@pytest.mark.parametrize("chunk", ["", f"0-{len(DATA) - 1}"], ids=["stream", "chunk"])
@pytest.mark.parametrize("again_at", [0, SENT], ids=["from its start", "from the offset"])
def test_a_push_that_broke_off_goes_on(registry: Registry, repository: str, chunk: str, again_at: int) -> None:
    """From the offset always; from its start a chunk may begin again, since clients blindly repeat a range."""
    location = registry.open_session(repository)
    begin_patch(registry, location, announced=len(DATA), chunk=chunk).close()
    wait_for(lambda: offset(registry, location) == SENT, 20, "what arrived to be stored")

    sent = registry.patch(location, DATA[again_at:], again_at)

    if again_at == 0 and not chunk:
        assert (sent.status, sent.headers["Range"]) == (416, f"0-{SENT - 1}")
        sent = registry.patch(location, DATA[SENT:], SENT)
    assert (sent.status, sent.headers["Range"]) == (202, f"0-{len(DATA) - 1}")
    assert registry.close_session(location, digest_of(DATA)).status == 201
    assert registry.get(f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA


def test_a_second_writer_is_refused_and_the_first_one_ends_well(registry: Registry, repository: str) -> None:
    location = registry.open_session(repository)

    def refused_ahead() -> str:
        """What is said of a chunk that no session could take now."""
        answer = registry.patch(location, DATA[7:9], 7)
        assert (answer.status, answer.headers["Range"]) == (416, "0-0")
        return str(answer.json["errors"][0]["message"])

    out_of_order = refused_ahead()
    with begin_patch(registry, location, announced=len(DATA), chunk=f"0-{len(DATA) - 1}") as first:
        wait_for(lambda: refused_ahead() != out_of_order, 30, "the first writer to have the session to itself")
        first.sendall(DATA[SENT:])
        assert first.recv(100).startswith(b"HTTP/1.1 202 ")

    assert registry.close_session(location, digest_of(DATA)).status == 201
    assert registry.get(f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA


@pytest.mark.parametrize("is_ollama", [True, False], ids=["ollama", "others"])
def test_a_finished_chunk_comes_again_from_the_ollama_client_only(
    registry: Registry, repository: str, is_ollama: bool
) -> None:
    headers = {"Content-Range": f"0-{len(DATA) - 1}", **({"X-Redirect-Uploads": "1"} if is_ollama else {})}
    location = registry.open_session(repository)
    assert registry.request("PATCH", location, DATA, headers).status == 202

    again = registry.request("PATCH", location, DATA, headers)

    assert (again.status, again.headers["Range"]) == (202 if is_ollama else 416, f"0-{len(DATA) - 1}")
    assert registry.close_session(location, digest_of(DATA)).status == 201
