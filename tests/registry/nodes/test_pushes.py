"""One push over several nodes, and what each of them sees of it at once."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from tests.client import Client

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest(config: bytes, *layers: bytes) -> bytes:
    first, *rest = (
        {"mediaType": "application/x", "digest": digest_of(data), "size": len(data)} for data in (config, *layers)
    )
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": first, "layers": rest}).encode()


def test_the_chunks_of_an_upload_may_go_to_any_node(clients: list[Client]) -> None:
    data = os.urandom(20 * 2**20 + 12_345)  # a part of the bucket's, and a tail
    sizes, turns, sent = cycle([3_000_000, 1, 5_500_000, 70_000]), cycle(clients), 0
    location = clients[0].request("POST", "/v2/team/parts/blobs/uploads/", b"").headers["Location"]

    while sent < len(data):
        piece = data[sent : sent + next(sizes)]
        headers = {"Content-Range": f"{sent}-{sent + len(piece) - 1}"}
        answer = next(turns).request("PATCH", location, piece, headers)
        assert answer.status == 202, answer.body
        sent += len(piece)
        told = next(turns).request("GET", location)
        assert told.headers["Range"] == f"0-{sent - 1}"
    done = next(turns).request("PUT", f"{location}?digest={digest_of(data)}", b"")

    assert done.status == 201, done.body
    for client in clients:
        assert client.request("GET", f"/v2/team/parts/blobs/{digest_of(data)}").body == data


def test_what_one_node_is_told_all_answer_next(clients: list[Client]) -> None:
    config, layer, other = b"{}", b"first", b"second"
    for client, data in zip(clients, (config, layer, other), strict=True):
        client.push_blob("team/seen", data)

    for client, layers in zip(clients, ((layer,), (other,), (layer, other)), strict=True):
        raw = manifest(config, *layers)
        assert client.put_manifest("team/seen", "latest", raw, MANIFEST).status == 201
        assert [each.request("GET", "/v2/team/seen/manifests/latest").body for each in clients] == [raw] * 3


def test_a_manifest_that_one_node_deleted_is_gone_from_all(clients: list[Client]) -> None:
    raw = manifest(b"{}", b"short")
    for data in (b"{}", b"short"):
        clients[0].push_blob("commons/short", data)
    assert clients[0].put_manifest("commons/short", "v1", raw, MANIFEST).status == 201
    anybody = [Client(client.host) for client in clients]
    clients[0].post_json("/api/show", {"model": "commons/short:v1"})
    for path in ("manifests/v1", f"manifests/{digest_of(raw)}"):
        read = [client.request("GET", f"/v2/commons/short/{path}") for client in (*clients, *clients)]
        assert [answer.body for answer in read] == [raw] * 6

    assert clients[1].request("DELETE", f"/v2/commons/short/manifests/{digest_of(raw)}").status == 202

    for path in ("manifests/v1", f"manifests/{digest_of(raw)}"):
        assert [client.request("GET", f"/v2/commons/short/{path}").status for client in clients] == [404] * 3
        assert {client.request("GET", f"/v2/commons/short/{path}").status for client in anybody} <= {401, 404}


def test_one_blob_that_all_nodes_take_at_once_is_stored_once(clients: list[Client]) -> None:
    data = os.urandom(300_000)
    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(lambda client: client.push_blob("team/same", data), clients * 2))

    assert digests == {digest_of(data)}
    for client in clients:
        assert client.request("GET", f"/v2/team/same/blobs/{digest_of(data)}").body == data
