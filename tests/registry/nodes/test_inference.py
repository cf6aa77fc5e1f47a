"""A node runs what it is asked, from the bucket that all share, and knows of its own models alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client

MODEL = "team/tiny:latest"


@pytest.fixture(scope="module")
def model(clients: list[Client], tiny_gguf: Path) -> Iterator[str]:
    clients[0].push_model("team/tiny", "latest", tiny_gguf)
    yield MODEL
    for client in clients:
        client.post_json("/api/generate", {"model": MODEL, "keep_alive": 0})


def generate(client: Client, model: str) -> Any:
    """What the model says, and who says it."""
    asked = {"model": model, "prompt": "ship", "options": {"seed": 7, "num_predict": 8}, "stream": False}
    answer = client.post_json("/api/generate", asked, timeout_s=120)
    assert answer.status == 200, answer.body
    return answer.headers["Tonnage-Node"], answer.json["response"]


def running(client: Client) -> list[str]:
    return [each["name"] for each in client.request("GET", "/api/ps").json["models"]]


def test_each_node_runs_what_it_is_asked_and_lists_its_own(clients: list[Client], model: str) -> None:
    (first, said), (second, repeated) = generate(clients[0], model), generate(clients[1], model)

    assert (first, second) == ("node0", "node1")
    assert said == repeated
    assert [running(client) for client in clients] == [[model], [model], []]

    clients[0].post_json("/api/generate", {"model": model, "keep_alive": 0})
    assert [running(client) for client in clients] == [[], [model], []]


def test_a_stream_names_its_node(clients: list[Client], model: str) -> None:
    connection, response = clients[1].open("POST", "/api/generate", b'{"model": "team/tiny", "prompt": "ship"}')
    with response:
        assert response.headers["Tonnage-Node"] == "node1"
        assert response.headers["Transfer-Encoding"] == "chunked"
    connection.close()
