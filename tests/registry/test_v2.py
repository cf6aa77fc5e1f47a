"""The registry's own routes over a real socket."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from typing import Any

import pytest

from tests.backends import open_sessions
from tests.client import CONFIG_TYPE, Client
from tests.server import Server, wait_for

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
BLOB = bytes(range(256)) * 8
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"


@pytest.fixture(scope="module")
def repository(admin: Client) -> str:
    """A repository that holds BLOB."""
    assert admin.push_blob("v2/blobs", BLOB) == DIGEST
    return "v2/blobs"


def image(admin: Client, repository: str, **fields: Any) -> bytes:
    """A manifest whose blobs are in the repository."""
    config = json.dumps(fields.pop("config", {"os": "linux"})).encode()
    descriptor = {"mediaType": CONFIG_TYPE, "digest": admin.push_blob(repository, config), "size": len(config)}
    layer = {"mediaType": "application/x", "digest": admin.push_blob(repository, BLOB), "size": len(BLOB)}
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, "layers": [layer], **fields}
    return json.dumps(body).encode()


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_a_stranger_is_challenged_and_an_admin_is_not(stranger: Client, admin: Client) -> None:
    challenged = stranger.request("GET", "/v2/")

    assert challenged.status == 401
    assert challenged.headers["WWW-Authenticate"].startswith(
        f'Bearer realm="http://{stranger.host}/v2/token",service="'
    )
    assert challenged.code == "UNAUTHORIZED"
    assert challenged.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert admin.request("GET", "/v2/").status == 200


def test_a_private_repository_and_a_missing_one_look_alike(stranger: Client, repository: str) -> None:
    there = stranger.request("GET", f"/v2/{repository}/blobs/{DIGEST}")
    missing = stranger.request("GET", f"/v2/v2/nowhere/blobs/{DIGEST}")

    assert (there.status, missing.status) == (401, 401)
    assert there.body.replace(repository.encode(), b"X") == missing.body.replace(b"v2/nowhere", b"X")


def test_a_public_namespace_is_read_without_a_key_and_never_written(
    shared_server: Server, admin: Client, stranger: Client
) -> None:
    shared_server.run("namespace", "create", "open-to-read", "--public")
    admin.push_blob("open-to-read/a", BLOB)

    assert stranger.request("GET", f"/v2/open-to-read/a/blobs/{DIGEST}").body == BLOB
    assert stranger.request("POST", "/v2/open-to-read/a/blobs/uploads/").status == 401
    assert stranger.request("DELETE", f"/v2/open-to-read/a/blobs/{DIGEST}").status == 401


def test_head_tells_the_size_and_every_get_tells_a_location(admin: Client, repository: str) -> None:
    path = f"/v2/{repository}/blobs/{DIGEST}"
    head, get = admin.request("HEAD", path), admin.request("GET", path)

    assert (head.status, head.body, get.status, get.body) == (200, b"", 200, BLOB)
    for answer in (head, get):
        assert answer.headers["Content-Length"] == str(len(BLOB))
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Docker-Content-Digest"] == DIGEST
        assert answer.headers["Location"].partition("?")[0] == path
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert "Transfer-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)],
)
def test_a_range_is_answered_with_exactly_it(
    admin: Client, repository: str, header: str, first: int, last: int
) -> None:
    answer = admin.request("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"Range": f"bytes={header}"})

    assert (answer.status, answer.body) == (206, BLOB[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(BLOB)}"
    assert answer.headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize("header", ["500-0", "5000-10000"])
def test_a_range_without_a_byte_is_416(admin: Client, repository: str, header: str) -> None:
    answer = admin.request("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"Range": f"bytes={header}"})

    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(BLOB)}"


def test_what_a_client_has_is_not_sent_again(admin: Client, repository: str) -> None:
    answer = admin.request("GET", f"/v2/{repository}/blobs/{DIGEST}", headers={"If-None-Match": f'"{DIGEST}"'})

    assert (answer.status, answer.body) == (304, b"")


def test_an_empty_blob_is_a_blob(admin: Client) -> None:
    digest = admin.push_blob("v2/empty", b"")

    answer = admin.request("GET", f"/v2/v2/empty/blobs/{digest}")

    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "0", b"")


def test_a_whole_blob_goes_in_one_post(admin: Client) -> None:
    answer = admin.request("POST", f"/v2/v2/post/blobs/uploads/?digest={DIGEST}", BLOB)

    assert answer.status == 201
    assert answer.headers["Location"].endswith(f"/v2/v2/post/blobs/{DIGEST}")
    assert admin.request("GET", answer.headers["Location"]).body == BLOB


def test_a_digest_announced_without_a_body_opens_a_session(admin: Client) -> None:
    answer = admin.request("POST", f"/v2/v2/announced/blobs/uploads/?digest={DIGEST}", headers={"Content-Length": "0"})

    assert answer.status == 202
    done = admin.request("PUT", f"{answer.headers['Location']}?digest={DIGEST}", BLOB)
    assert done.status == 201


def test_chunks_go_in_order_and_one_out_of_order_leaves_the_session(admin: Client) -> None:
    location = admin.request("POST", "/v2/v2/chunks/blobs/uploads/").headers["Location"]
    assert location.startswith("http://")
    first = admin.request("PATCH", location, BLOB[:1000], {"Content-Range": "0-999"})
    assert (first.status, first.headers["Range"]) == (202, "0-999")

    ahead = admin.request("PATCH", location, BLOB[1500:], {"Content-Range": "1500-2047"})
    again = admin.request("PATCH", location, BLOB[:1000], {"Content-Range": "0-999"})

    assert (ahead.status, ahead.headers["Range"], again.status) == (416, "0-999", 416)
    assert ahead.headers["Location"] == location
    status = admin.request("GET", f"{location}?digest={DIGEST}")
    assert (status.status, status.headers["Range"]) == (204, "0-999")
    wrong_end = admin.request("PUT", f"{location}?digest={DIGEST}", BLOB[1500:], {"Content-Range": "1500-2047"})
    assert wrong_end.status == 416
    done = admin.request("PUT", f"{location}?digest={DIGEST}", BLOB[1000:], {"Content-Range": "1000-2047"})
    assert done.status == 201
    repeated = admin.request("PUT", f"{location}?digest={DIGEST}", headers={"Content-Length": "0"})
    assert repeated.status == 201, "the answer may have been lost"


def test_a_stream_without_a_length_is_stored(admin: Client) -> None:
    location = admin.request("POST", "/v2/v2/stream/blobs/uploads/").headers["Location"]
    pieces = [os.urandom(100_000) for _ in range(20)]

    sent = admin.request("PATCH", location, iter(pieces), {"Transfer-Encoding": "chunked"}, chunked=True)

    assert (sent.status, sent.headers["Range"]) == (202, "0-1999999")
    digest = digest_of(b"".join(pieces))
    assert admin.request("PUT", f"{location}?digest={digest}").status == 201


@pytest.mark.parametrize("digest", ["", "sha256:bad", "sha1:" + "0" * 40, "md9:xyz"])
def test_a_bad_digest_at_the_end_keeps_the_session(admin: Client, digest: str) -> None:
    location = admin.request("POST", "/v2/v2/bad/blobs/uploads/").headers["Location"]
    admin.request("PATCH", location, BLOB)

    refused = admin.request("PUT", f"{location}?digest={digest}")

    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert admin.request("PUT", f"{location}?digest={DIGEST}").status == 201


def test_a_cancelled_session_is_unknown(admin: Client) -> None:
    location = admin.request("POST", "/v2/v2/cancel/blobs/uploads/").headers["Location"]

    assert admin.request("DELETE", location).status == 204
    gone = admin.request("PATCH", location, b"x")
    assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_mounting_needs_the_source_and_never_fails(admin: Client, repository: str) -> None:
    post = "/v2/v2/mounted/blobs/uploads/"

    mounted = admin.request("POST", f"{post}?mount={DIGEST}&from={repository}")
    from_anywhere = admin.request("POST", f"{post}?mount={DIGEST}")
    nowhere = admin.request("POST", f"{post}?mount=sha256:{'1' * 64}&from={repository}")
    file_name = admin.request("POST", f"{post}?mount=sha256:{'1' * 64}&from=library/Model.GGUF")

    assert [answer.status for answer in (mounted, from_anywhere, nowhere, file_name)] == [201, 201, 202, 202]
    assert admin.request("GET", f"/v2/v2/mounted/blobs/{DIGEST}").body == BLOB


def test_sha512_stays_sha512(admin: Client) -> None:
    digest = f"sha512:{hashlib.sha512(BLOB).hexdigest()}"
    location = admin.request("POST", "/v2/v2/long/blobs/uploads/").headers["Location"]

    assert admin.request("PUT", f"{location}?digest={digest}", BLOB).status == 201
    got = admin.request("GET", f"/v2/v2/long/blobs/{digest}")
    assert (got.body, got.headers["Docker-Content-Digest"]) == (BLOB, digest)


def test_a_manifest_comes_back_byte_for_byte(admin: Client) -> None:
    raw = image(admin, "v2/exact").replace(b'"schemaVersion"', b' "unknown": [1,  2],\n "schemaVersion"')

    put = admin.request(
        "PUT",
        "/v2/v2/exact/manifests/v1",
        iter([raw]),
        {"Content-Type": OCI_MANIFEST, "Transfer-Encoding": "chunked"},
        chunked=True,
    )

    assert (put.status, put.headers["Docker-Content-Digest"]) == (201, digest_of(raw))
    for reference in ("v1", digest_of(raw)):
        got = admin.request("GET", f"/v2/v2/exact/manifests/{reference}", headers={"Accept": "text/html"})
        head = admin.request("HEAD", f"/v2/v2/exact/manifests/{reference}")
        assert (got.status, got.body, got.headers["Content-Type"]) == (200, raw, OCI_MANIFEST)
        assert head.headers["Content-Length"] == str(len(raw))
        assert got.headers["ollama-content-digest"] == digest_of(raw).removeprefix("sha256:")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/v2/exact/manifests/.INVALID", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/v2/exact/manifests/sha256:totallywrong", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/v2/exact/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/v2/never/manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/v2/never/tags/list", 404, "NAME_UNKNOWN"),
        ("PUT", "/v2/v2/exact/manifests/sha256:bad", 400, "DIGEST_INVALID"),
        ("PUT", "/v2/v2/exact/manifests/.bad", 400, "TAG_INVALID"),
        ("POST", "/v2/V2/Upper/blobs/uploads/", 400, "NAME_INVALID"),
        ("GET", "/v2/v2/exact/blobs/sha256:bad", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/v2/exact/referrers/sha256:bad", 400, "DIGEST_INVALID"),
        ("GET", "/v2/v2/exact/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/v2/exact/nonsense", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/v2/exact/manifests/v1", 405, "UNSUPPORTED"),
        ("PUT", "/v2/v2/exact/blobs/uploads/nosuch?digest=" + DIGEST, 404, "BLOB_UPLOAD_UNKNOWN"),
    ],
)
def test_a_refusal_has_the_specs_status_and_code(admin: Client, method: str, path: str, status: int, code: str) -> None:
    answer = admin.request(method, path, b"{}" if method == "PUT" else None)

    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"


def test_a_manifest_over_the_limit_is_413(admin: Client) -> None:
    answer = admin.put_manifest("v2/large", "v1", b" " * (4 * 2**20 + 1))

    assert (answer.status, answer.code) == (413, "MANIFEST_INVALID")


def test_tags_are_listed_in_byte_order_and_in_pages(admin: Client) -> None:
    raw = image(admin, "v2/tags")
    for tag in ("b", "B", "a_1", "a.1", "a-1", "_"):
        assert admin.put_manifest("v2/tags", tag, raw, OCI_MANIFEST).status == 201

    first = admin.request("GET", "/v2/v2/tags/tags/list?n=4")
    rest = admin.request("GET", "/v2/v2/tags/tags/list?last=a_1")

    assert first.json == {"name": "v2/tags", "tags": ["B", "_", "a-1", "a.1"]}
    assert first.headers["Link"] == '</v2/v2/tags/tags/list?n=4&last=a.1>; rel="next"'
    assert rest.json["tags"] == ["b"]
    assert "Link" not in rest.headers


def test_a_tag_goes_alone_and_a_manifest_with_its_tags(admin: Client) -> None:
    raw = image(admin, "v2/gone")
    for tag in ("one", "two", "three"):
        admin.put_manifest("v2/gone", tag, raw, OCI_MANIFEST)

    assert admin.request("DELETE", "/v2/v2/gone/manifests/one").status == 202
    assert admin.request("GET", "/v2/v2/gone/manifests/two").status == 200
    in_use = admin.request("DELETE", f"/v2/v2/gone/blobs/{DIGEST}")
    assert (in_use.status, in_use.code) == (405, "DENIED")
    assert admin.request("DELETE", f"/v2/v2/gone/manifests/{digest_of(raw)}").status == 202
    assert admin.request("GET", "/v2/v2/gone/manifests/two").status == 404
    assert admin.request("DELETE", f"/v2/v2/gone/blobs/{DIGEST}").status == 202
    assert admin.request("HEAD", f"/v2/v2/gone/blobs/{DIGEST}").status == 404


def test_referrers_are_listed_and_filtered(admin: Client) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{'5' * 64}", "size": 5}
    raw = image(admin, "v2/refer", subject=subject, artifactType="application/vnd.a+json", annotations={"k": "v"})
    put = admin.put_manifest("v2/refer", digest_of(raw), raw, OCI_MANIFEST)
    assert put.headers["OCI-Subject"] == subject["digest"]

    listed = admin.request("GET", f"/v2/v2/refer/referrers/{subject['digest']}?artifactType=application/vnd.a+json")
    other = admin.request("GET", f"/v2/v2/refer/referrers/{subject['digest']}?artifactType=other")
    nothing = admin.request("GET", f"/v2/v2/never/referrers/{subject['digest']}")

    assert listed.headers["Content-Type"] == OCI_INDEX
    assert listed.headers["OCI-Filters-Applied"] == other.headers["OCI-Filters-Applied"] == "artifactType"
    (found,) = listed.json["manifests"]
    assert found["digest"] == digest_of(raw)
    assert found["annotations"] == {"k": "v"}
    assert other.json["manifests"] == []
    assert (nothing.status, nothing.json["manifests"]) == (200, [])


def test_a_manifest_by_digest_takes_tags_along(admin: Client) -> None:
    raw = image(admin, "v2/along")

    put = admin.put_manifest("v2/along", f"{digest_of(raw)}?tag=a&tag=b", raw, OCI_MANIFEST)

    assert put.headers.get_all("OCI-Tag") == ["a", "b"]
    assert admin.request("GET", "/v2/v2/along/manifests/b").body == raw


def test_the_names_of_the_spec_may_be_names_of_repositories(admin: Client) -> None:
    name = "v2/blobs/uploads/manifests/tags"
    raw = image(admin, name)

    assert admin.put_manifest(name, "list", raw, OCI_MANIFEST).status == 201
    assert admin.request("GET", f"/v2/{name}/manifests/list").body == raw
    assert admin.request("GET", f"/v2/{name}/tags/list").json["tags"] == ["list"]


def test_the_catalog_pages(admin: Client) -> None:
    for name in ("v2cat/a", "v2cat/b", "v2cat/c"):
        admin.put_manifest(name, "v1", image(admin, name), OCI_MANIFEST)

    first = admin.request("GET", "/v2/_catalog?n=2&last=v2cat")

    assert first.json == {"repositories": ["v2cat/a", "v2cat/b"]}
    assert (
        first.headers["Link"] == '</v2/_catalog?n=2&last=v2cat/b>; rel="next"' or "v2cat%2Fb" in first.headers["Link"]
    )


def test_paths_that_climb_or_split_are_refused(admin: Client) -> None:
    for path in (
        "/v2/../etc/passwd",
        "/v2/a/../b/tags/list",
        "/v2//a/tags/list",
        "/v2/a%2f..%2fb/tags/list",
        "/v2/a%00b/tags/list",
    ):
        answer = admin.request("GET", path)
        assert answer.status in (400, 404), path
        assert b"<html" not in answer.body.lower()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/nothing", 404, b"404 page not found"),
        ("POST", "/api/tags", 405, b"405 method not allowed"),
        ("GET", "/", 200, b"Ollama is running"),
        ("GET", "/healthz", 200, b"ok"),
    ],
)
def test_the_other_face_answers_in_plain_text(
    stranger: Client, method: str, path: str, status: int, body: bytes
) -> None:
    answer = stranger.request(method, path)

    assert (answer.status, answer.body) == (status, body)
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_head_is_answered_where_the_dialect_has_it(stranger: Client) -> None:
    assert stranger.request("HEAD", "/").status == 200
    assert stranger.request("HEAD", "/api/version").status == 200
    assert stranger.request("HEAD", "/api/tags").status == 200
    assert stranger.request("HEAD", "/api/ps").status == 405


def test_a_trailing_slash_is_redirected(stranger: Client) -> None:
    get, post = stranger.request("GET", "/api/tags/"), stranger.request("POST", "/api/show/", b"{}")

    assert (get.status, get.headers["Location"]) == (301, "/api/tags")
    assert (post.status, post.headers["Location"]) == (307, "/api/show")


def test_a_strange_page_is_refused_and_a_local_one_is_not(stranger: Client) -> None:
    def from_page(origin: str, **headers: str) -> Any:
        return stranger.request("GET", "/api/version", headers={"Origin": origin, **headers})

    assert (from_page("https://evil.example").status, from_page("https://evil.example").body) == (403, b"")
    assert from_page("http://localhost:3000").headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert from_page("http://localhost.evil.example").status == 403
    assert from_page("http://[").status == 403
    for host in ("evil.example", "a_b.evil.example", "a!b.evil.example", "a b", "[", "localhost.evil.example"):
        assert stranger.request("GET", "/api/version", headers={"Host": host}).status in (400, 403), host
    preflight = stranger.request("OPTIONS", "/any/path", headers={"Origin": "http://localhost:3000"})
    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


def test_a_proxy_on_this_machine_opens_no_door(stranger: Client, tiny_model: str) -> None:
    direct = stranger.request("GET", "/api/tags")
    proxied = stranger.request("GET", "/api/tags", headers={"X-Forwarded-For": "203.0.113.9"})

    assert direct.status == 200
    assert proxied.status == 403
    assert "error" in proxied.json


def test_a_hundred_tags_come_back_in_one_line(admin: Client) -> None:
    raw = image(admin, "v2/hundred")
    query = "&".join(f"tag=t{number}" for number in range(100))

    put = admin.put_manifest("v2/hundred", f"{digest_of(raw)}?{query}", raw, OCI_MANIFEST)

    assert put.status == 201
    assert len(put.headers["OCI-Tag"].split(",")) == 100


def test_a_broken_body_is_the_clients_and_leaves_no_session(admin: Client, shared_server: Server) -> None:
    before = open_sessions(shared_server.data)
    head = f"POST /v2/v2/broken/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nHost: {admin.host}\r\n"
    head += f"Authorization: Bearer {admin.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, port = admin.host.split(":")
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(head.encode() + b"5\r\nhello\r\nnot a size\r\n")
        answer = raw.recv(65536)

    assert answer.startswith(b"HTTP/1.1 400"), answer
    wait_for(lambda: open_sessions(shared_server.data) <= before, 5, "the session to be gone")


def test_a_repeated_put_does_not_speak_for_a_blob_that_is_gone(admin: Client) -> None:
    location = admin.request("POST", "/v2/v2/again/blobs/uploads/").headers["Location"]
    assert admin.request("PUT", f"{location}?digest={DIGEST}", BLOB).status == 201
    assert admin.request("DELETE", f"/v2/v2/again/blobs/{DIGEST}").status == 202

    assert admin.request("PUT", f"{location}?digest={DIGEST}").status == 404
