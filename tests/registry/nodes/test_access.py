"""Who may do what is the same on every node, from one request to the next."""

from __future__ import annotations

import secrets
import time
from urllib.parse import quote

import pytest

from auth.keys import PrivateKey, sign_token_request, token_request_url
from tests.client import Answer, Client
from tests.nodes import ADDRESS, Nodes

NAME = "vault/model"
BLOB = b"what the vault holds"


@pytest.fixture(scope="module")
def path(clients: list[Client]) -> str:
    """Where the blob of a private repository is."""
    return f"/v2/{NAME}/blobs/{clients[0].push_blob(NAME, BLOB)}"


def fetch(host: str, secret: str) -> str:
    """A bearer token of this node's for an access token."""
    asked = Client(host, secret).request("GET", f"/v2/token?service={ADDRESS}&scope=repository:{NAME}:pull")
    assert asked.status == 200, asked.body
    return str(asked.json["token"])


def signed(key: PrivateKey) -> tuple[str, str]:
    """Target and Authorization of a token request that the key signs."""
    asked = f"repository:{NAME}:pull"
    url = token_request_url(f"http://{ADDRESS}/v2/token", ADDRESS, asked, int(time.time()), secrets.token_hex())
    return url.removeprefix(f"http://{ADDRESS}"), sign_token_request(key, url)


def ask(node: str, target: str, authorization: str) -> Answer:
    return Client(node).request("GET", target, headers={"Host": ADDRESS, "Authorization": authorization})


def let_in(node: Client) -> PrivateKey:
    """A new key that may pull what the vault holds."""
    key = PrivateKey.generate()
    grant = {"namespace": "vault", "key": key.public.line, "role": "pull"}
    assert node.post_json("/admin/keys", grant, headers={"Content-Type": "application/json"}).status == 201
    return key


def statuses(nodes: Nodes, path: str, token: str) -> list[int]:
    return [Client(host, token).request("GET", path).status for host in nodes.hosts]


def test_a_bearer_token_of_one_node_counts_on_all(nodes: Nodes, path: str) -> None:
    tokens = [fetch(host, nodes.admin_token) for host in nodes.hosts]

    assert [statuses(nodes, path, token) for token in tokens] == [[200] * 3] * 3


def test_a_signed_address_of_one_node_counts_on_all(nodes: Nodes, path: str, clients: list[Client]) -> None:
    addresses = [client.request("HEAD", path).headers["Location"] for client in clients]

    answers = [Client(host).request("GET", address) for address in addresses for host in nodes.hosts]

    assert [(answer.status, answer.body) for answer in answers] == [(200, BLOB)] * 9


def test_a_signed_request_counts_once_whichever_node_it_reaches(nodes: Nodes, clients, path: str) -> None:
    key = let_in(clients[0])
    target, authorization = signed(key)

    answers = [ask(node, target, authorization) for node in nodes.hosts]

    assert [answer.status for answer in answers] == [200, 401, 401]
    assert statuses(nodes, path, answers[0].json["token"]) == [200] * 3


def test_a_key_that_is_removed_on_one_node_is_nobodys_on_the_others(nodes: Nodes, clients, path: str) -> None:
    key = let_in(clients[0])
    bearer = str(ask(nodes.hosts[2], *signed(key)).json["token"])
    assert statuses(nodes, path, bearer) == [200] * 3

    gone = clients[1].request("DELETE", f"/admin/keys/{quote(key.public.fingerprint, safe='')}")

    assert gone.status == 200, gone.body
    assert statuses(nodes, path, bearer) == [401] * 3


def test_a_token_that_is_revoked_on_one_node_ends_all_that_came_of_it(nodes: Nodes, path: str) -> None:
    secret = nodes.servers[0].create_token("reader", "pull")
    bearer = fetch(nodes.hosts[1], secret)
    address = Client(nodes.hosts[2], secret).request("HEAD", path).headers["Location"]
    assert statuses(nodes, path, secret) == statuses(nodes, path, bearer) == statuses(nodes, address, "") == [200] * 3

    nodes.servers[2].run("token", "revoke", "reader")

    assert statuses(nodes, path, secret) == statuses(nodes, path, bearer) == statuses(nodes, address, "") == [401] * 3


def test_no_node_has_the_secret_half_of_another_ones_key(nodes: Nodes) -> None:
    files = [(server.data / "keys" / "token-1.pem").read_bytes() for server in nodes.servers]

    assert len(set(files)) == 3
