"""Nodes that start together on an empty database, and say who they are."""

from __future__ import annotations

import json

import pytest

from tests.client import Client
from tests.nodes import Nodes


def test_nodes_that_start_at_once_print_one_admin_token(nodes: Nodes) -> None:
    assert [server.log.count("The admin token") for server in nodes.servers].count(1) == 1
    assert sum(bool(server.admin_token) for server in nodes.servers) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 200),
        ("GET", "/v2/team/model/manifests/none", 404),
        ("GET", "/api/ps", 200),
        ("POST", "/api/generate", 400),
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/tags", 405),
        ("GET", "/healthz", 200),
    ],
)
def test_every_answer_names_the_node_that_gives_it(clients: list[Client], method: str, path: str, status: int) -> None:
    answers = [client.request(method, path, b"") for client in clients]

    assert [answer.status for answer in answers] == [status] * 3
    assert [answer.headers["Tonnage-Node"] for answer in answers] == ["node0", "node1", "node2"]


def test_the_short_way_to_a_public_manifest_names_it_too(nodes: Nodes, clients: list[Client]) -> None:
    config = clients[0].push_blob("commons/named", b"{}")
    nodes.servers[1].run("namespace", "set", "commons", "--public")
    raw = {"schemaVersion": 2, "config": {"mediaType": "application/x", "digest": config, "size": 2}, "layers": []}
    assert clients[0].put_manifest("commons/named", "v1", json.dumps(raw).encode()).status == 201

    answers = [Client(host).request("GET", "/v2/commons/named/manifests/v1") for host in nodes.hosts]

    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.headers.get_all("Tonnage-Node") for answer in answers] == [["node0"], ["node1"], ["node2"]]
