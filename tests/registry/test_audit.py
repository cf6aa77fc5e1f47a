"""What requests and commands leave in the audit trail, over a real server."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from auth.keys import PrivateKey, sign_token_request, token_request_url
from tests.client import Client
from tests.server import Server, running_server, wait_for

FAR_AWAY = {"X-Forwarded-For": "203.0.113.9"}
MANIFEST = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("audit") / "data"
    with running_server(data, {"TONNAGE_TRUSTED_PROXIES": "127.0.0.1"}) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: Server) -> Client:
    return Client(server.host, server.admin_token)


@pytest.fixture
def name() -> str:
    return f"n{secrets.token_hex(4)}/model"


_numbers = count(1)


def elsewhere() -> dict[str, str]:
    """An address that no other test has."""
    return {"X-Forwarded-For": f"198.51.100.{next(_numbers)}"}


Rows = list[dict[str, Any]]


@pytest.fixture
def rows(server: Server) -> Callable[..., Rows]:
    """The trail as `tonnage audit --json` shows it, once there are `count` rows."""

    def read(*arguments: str, count: int = 1) -> Rows:
        found: Rows = []

        def are_there() -> bool:
            found[:] = map(json.loads, server.run("audit", "--json", *arguments).stdout.splitlines())
            return len(found) >= count

        wait_for(are_there, 20, f"{count} rows of {arguments}")
        return found

    return read


def index(salt: str = "") -> bytes:
    annotations = {"salt": salt}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": [], "annotations": annotations}).encode()


def push(client: Client, name: str, reference: str, raw: bytes = b"", **headers: str) -> str:
    sent = {"Content-Type": MANIFEST, **{key.replace("_", "-"): value for key, value in headers.items()}}
    answer = client.request("PUT", f"/v2/{name}/manifests/{reference}", raw or index(), sent)
    assert answer.status == 201, answer.body
    return answer.headers["Docker-Content-Digest"]


def ask_for_token(host: str, key: PrivateKey, scope: str, **headers: str) -> int:
    nonce = secrets.token_urlsafe(16)
    url = token_request_url(f"http://{host}/v2/token", "tonnage", scope, int(time.time()), nonce)
    signed = {"Authorization": sign_token_request(key, url), **headers}
    return Client(host).request("GET", url.removeprefix(f"http://{host}"), headers=signed).status


def test_a_push_is_a_row_with_who_what_from_where_and_the_request(admin, name, rows):
    digest = push(admin, name, "v1", X_Request_Id="push-1", **FAR_AWAY)

    [row] = rows("--repository", name)

    assert {key: row[key] for key in ("who", "what", "namespace", "repository", "reference", "detail", "count")} == {
        "who": "token:admin", "what": "push", "namespace": name.partition("/")[0], "repository": name,
        "reference": "v1", "detail": digest, "count": 1,
    }  # fmt: skip
    assert (row["from"], row["request_id"]) == ("203.0.113.9", "push-1")


def test_a_tag_that_named_another_manifest_is_a_move_and_one_that_did_not_is_none(admin, name, rows):
    first = push(admin, name, "v1")
    push(admin, name, "v1")
    second = push(admin, name, "v1", index("2"))
    third = push(admin, name, f"{push(admin, name, 'v2', index('3'))}?tag=v1&tag=new", index("3"))

    moves = rows("--repository", name, "--what", "tag.move", count=2)

    assert [(each["reference"], each["detail"]) for each in moves] == [
        ("v1", f"from {first} to {second}"),
        ("v1", f"from {second} to {third}"),
    ]


def test_everything_deleted_is_a_row(admin, name, rows, tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    admin.push_model(name, "v1", weights)
    digest = push(admin, name, "v2")
    blob = admin.push_blob(name, b"unwanted")
    for path in ("manifests/v2", f"manifests/{digest}", f"blobs/{blob}"):
        assert admin.request("DELETE", f"/v2/{name}/{path}").status == 202
    assert admin.request("DELETE", f"/v2/{name}/manifests/gone").status == 404
    body = json.dumps({"model": f"{name}:v1"}).encode()
    assert admin.request("DELETE", "/api/delete", body).status == 200

    deleted = [each for each in rows("--repository", name) if each["what"].startswith("delete.")]

    assert [(each["what"], each["reference"]) for each in deleted] == [
        ("delete.tag", "v2"),
        ("delete.manifest", digest),
        ("delete.blob", blob),
        ("delete.model", "v1"),
    ]


def test_reading_a_private_manifest_is_a_row_and_head_blobs_and_public_ones_are_none(admin, server, name, rows):
    public = f"p{secrets.token_hex(4)}"
    server.run("namespace", "create", public, "--public")
    for repository in (f"{public}/model", name):
        push(admin, repository, "v1")
        for method in ("HEAD", "GET", "GET"):
            assert admin.request(method, f"/v2/{repository}/manifests/v1").status == 200

    read = rows("--what", "pull", "--repository", name)

    assert {(each["who"], each["reference"]) for each in read} == {("token:admin", "v1")}
    assert sum(each["count"] for each in read) <= 2
    assert server.run("audit", "--json", "--what", "pull", "--repository", public).stdout == ""


def test_an_anonymous_challenge_is_no_row_and_credentials_that_do_not_do_are(admin, server, name, rows):
    push(admin, name, "v1")
    path, far = f"/v2/{name}/manifests/v1", elsewhere()
    assert Client(server.host).request("GET", "/v2/", headers=far).status == 401
    assert Client(server.host).request("GET", path, headers=far).status == 401
    other = server.run("token", "create", name.partition("/")[0], "--scope", "pull", "--namespace", "other")
    secret = other.stdout.splitlines()[-1]

    assert Client(server.host, secret).request("PUT", path, index(), far).status == 401

    [row] = [each for each in rows("--what", "refuse", "--repository", name) if each["from"] == far["X-Forwarded-For"]]
    assert (row["who"], row["reference"]) == (f"token:{name.partition('/')[0]}", "v1")
    assert secret not in json.dumps(row)


def test_a_wrong_secret_is_a_row_without_it(server, rows):
    far = elsewhere()
    wrong = f"tng_abcdefghijkl_{secrets.token_urlsafe(32)}"

    assert Client(server.host, wrong).request("GET", "/v2/token?scope=repository:x/y:pull", headers=far).status == 401

    [row] = [each for each in rows("--what", "refuse", "--repository", "x/y") if each["from"] == far["X-Forwarded-For"]]
    assert (row["who"], row["repository"]) == ("anonymous", "x/y")
    assert wrong[17:] not in json.dumps(row)


def test_a_bearer_token_that_is_only_to_be_widened_is_no_refusal(admin, server, name, rows):
    push(admin, name, "v1")
    far = elsewhere()
    token = admin.request("GET", f"/v2/token?scope=repository:{name}:pull").json["token"]
    assert Client(server.host, token).request("DELETE", f"/v2/{name}/manifests/v1", headers=far).status == 401
    assert Client(server.host, "wrong").request("DELETE", f"/v2/{name}/manifests/v1", headers=far).status == 401

    refused = [
        each for each in rows("--what", "refuse", "--repository", name) if each["from"] == far["X-Forwarded-For"]
    ]

    assert [(each["who"], each["count"]) for each in refused] == [("anonymous", 1)]


def test_a_flood_of_refusals_is_a_few_rows_and_a_push_goes_through_meanwhile(admin, server, name, rows):
    far = {"X-Forwarded-For": "192.0.2.77"}
    for _ in range(200):
        assert Client(server.host, "wrong").request("DELETE", f"/v2/{name}/manifests/v1", headers=far).status == 401
    push(admin, name, "v1")

    refused = [each for each in rows("--what", "refuse", "--repository", name) if each["from"] == "192.0.2.77"]

    assert len(refused) <= 8  # two a worker, and two minutes at most


def test_what_commands_grant_is_a_row_by_whoever_typed_them(server, name, rows, tmp_path):
    namespace = name.partition("/")[0]
    key = PrivateKey.generate()
    key.save(tmp_path / "key")
    server.run("namespace", "create", namespace)
    server.run("namespace", "set", namespace, "--public")
    server.run("key", "add", namespace, str(tmp_path / "key.pub"))
    server.run("key", "add", namespace, str(tmp_path / "key.pub"), "--role", "pull")
    server.run("key", "remove", key.public.fingerprint)
    secret = server.run("token", "create", f"t-{namespace}", "--scope", "pull", "--scope", "push").stdout.split()[-1]
    server.run("token", "revoke", f"t-{namespace}")

    mine = [each for each in rows() if namespace in json.dumps(each)]

    told = [(each["what"], each["namespace"], each["reference"], each["detail"]) for each in mine]
    assert told == [
        ("namespace.create", namespace, None, "private"),
        ("namespace.change", namespace, None, "public"),
        ("key.add", namespace, key.public.fingerprint, "push"),
        ("key.change", namespace, key.public.fingerprint, "pull"),
        ("key.remove", None, key.public.fingerprint, f"pull in {namespace}"),
        ("token.create", None, f"t-{namespace}", "pull,push in every namespace"),
        ("token.revoke", None, f"t-{namespace}", None),
    ]
    assert all(each["who"].startswith("cli:") for each in mine)
    assert secret not in json.dumps(mine)


def test_the_table_for_people_has_a_head_and_a_line_a_row(server, admin, name):
    push(admin, name, "v1")

    head, line = server.run("audit", "--repository", name).stdout.splitlines()

    assert head.split() == ["TIME", "WHAT", "WHO", "OBJECT", "FROM", "TIMES", "DETAIL"]
    assert f"token:admin  {name}:v1" in line


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--since", "0h"], ["--what", "anything"]])
def test_what_cannot_be_asked_is_a_usage_error(server, arguments):
    done = server.run("audit", *arguments, check=False)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_key_that_nobody_let_in_is_shown_and_let_in_by_the_command_that_is_shown(server, name, rows):
    namespace, key = name.partition("/")[0], PrivateKey.generate()
    far = {"X-Forwarded-For": "198.51.100.200"}
    assert ask_for_token(server.host, key, f"repository:{name}:push,pull", **far) == 403
    print_ = key.public.fingerprint
    wait_for(lambda: print_ in server.run("key", "refused").stdout, 20, "the key to be listed")

    listed = server.run("key", "refused").stdout
    command = next(line.strip() for line in listed.splitlines() if line.startswith("  tonnage") and print_ in line)

    assert command == f"tonnage key add {namespace} {print_} --role push"
    assert key.public.line in listed and "from 198.51.100.200" in listed and f"{name}:pull,push" in listed
    assert any(each["who"] == f"key:{print_}" for each in rows("--what", "refuse", "--repository", name))
    server.run("namespace", "create", namespace)
    server.run(*command.split()[1:])
    assert ask_for_token(server.host, key, f"repository:{name}:push,pull") == 200
    assert print_ not in server.run("key", "refused").stdout
    assert f"{print_}\t{namespace}\tpush" in server.run("key", "list").stdout


def test_refused_keys_can_be_forgotten_and_unknown_ones_not_be_let_in(server):
    key = PrivateKey.generate()
    ask_for_token(server.host, key, "repository:some/model:pull")
    wait_for(lambda: key.public.fingerprint in server.run("key", "refused").stdout, 20, "the key to be listed")

    server.run("key", "refused", "--clear")

    assert server.run("key", "refused").stdout == ""
    done = server.run("key", "add", "acme", key.public.fingerprint, check=False)
    assert (done.returncode, "key refused" in done.stderr) == (1, True)


def test_when_a_token_was_last_used_is_listed(server):
    secret = server.run("token", "create", "used", "--scope", "pull").stdout.splitlines()[-1]
    assert "used\tpull\tevery namespace\tactive\tnever used" in server.run("token", "list").stdout

    assert Client(server.host, secret).request("GET", "/v2/").status == 200

    wait_for(lambda: "active\tused 2" in line_of(server, "used"), 20, "the use to be listed")


def line_of(server: Server, token: str) -> str:
    return next(line for line in server.run("token", "list").stdout.splitlines() if line.startswith(f"{token}\t"))


def test_what_is_gathered_is_written_when_the_server_is_told_to_stop(tmp_path: Path):
    with running_server(tmp_path / "data") as server:
        Client(server.host, "wrong").request("GET", "/v2/some/model/manifests/v1")
        server.stop()

        rows = server.run("audit", "--json", "--what", "refuse").stdout.splitlines()

    assert [json.loads(each)["repository"] for each in rows] == ["some/model"]
