"""What goes wrong, against the real server: one clear line, the right status, and nothing half-stored."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backends import OF_FILES
from tests.client import CONFIG_TYPE, DOCKER_MANIFEST, MODEL_TYPE, Client
from tests.server import ROOT, is_alive, running_server, start_server, wait_for
from tests.tiny_gguf import write_tiny_gguf

PREDICT_LONG = {"temperature": 0, "num_predict": 20_000, "num_ctx": 2048}
ZEROES = "sha256:" + "0" * 64


def chat_body(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


def test_an_unknown_model_is_named(stranger: Client) -> None:
    answer = stranger.post_json("/api/chat", chat_body("no/such"))

    assert (answer.status, answer.json) == (404, {"error": "model 'no/such' not found"})


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"model": 7}'])
def test_a_bad_body_is_a_400_with_one_line(stranger: Client, path: str, body: bytes) -> None:
    answer = stranger.request("POST", path, body)

    assert answer.status == 400
    assert set(answer.json) == {"error"}
    assert "\n" not in answer.json["error"]
    assert "Traceback" not in answer.json["error"]


def test_an_empty_body_is_called_missing(stranger: Client) -> None:
    answer = stranger.request("POST", "/api/chat", b"  ")

    assert (answer.status, answer.json) == (400, {"error": "missing request body"})


def test_an_option_of_the_wrong_type_is_named(stranger: Client, tiny_model: str) -> None:
    answer = stranger.post_json("/api/chat", chat_body(tiny_model, options={"temperature": "hot"}))

    assert (answer.status, answer.json) == (500, {"error": 'option "temperature" must be of type float32'})


def test_a_digest_that_does_not_match_stores_nothing(admin: Client) -> None:
    location = admin.request("POST", "/v2/shared/mismatch/blobs/uploads/").headers["Location"]

    answer = admin.request("PUT", f"{location}?digest={ZEROES}", b"other bytes")

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert admin.request("HEAD", f"/v2/shared/mismatch/blobs/{ZEROES}").status == 404


def test_a_truncated_body_keeps_what_arrived_and_makes_nothing_visible(admin: Client) -> None:
    data = os.urandom(3 * 2**20)
    location = admin.request("POST", "/v2/shared/cut/blobs/uploads/").headers["Location"]
    path = location.split(admin.host, 1)[1]
    with socket.create_connection(admin.host.split(":"), 30) as raw:
        head = f"PATCH {path} HTTP/1.1\r\nHost: {admin.host}\r\nAuthorization: Bearer {admin.token}\r\n"
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[: 2 * 2**20])

    def offset() -> int:
        return int(admin.request("GET", location).headers["X-Upload-Offset"])

    wait_for(lambda: offset() == 2 * 2**20, 10, "the bytes that arrived to be kept")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert admin.request("HEAD", f"/v2/shared/cut/blobs/{digest}").status == 404
    rest = admin.request("PATCH", location, data[2 * 2**20 :], {"Content-Range": f"{2 * 2**20}-{len(data) - 1}"})
    assert rest.status == 202
    assert admin.request("PUT", f"{location}?digest={digest}").status == 201
    assert admin.request("GET", f"/v2/shared/cut/blobs/{digest}").body == data


def test_a_manifest_without_its_blobs_is_refused(admin: Client) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": ZEROES, "size": 2},
        "layers": [],
    }

    answer = admin.put_manifest("shared/absent", "v1", json.dumps(manifest).encode())

    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert admin.request("GET", "/v2/shared/absent/manifests/v1").status == 404


def test_a_file_that_is_no_gguf_is_refused_when_asked_not_loaded(
    admin: Client, stranger: Client, tmp_path: Path
) -> None:
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"PK\x03\x04" + b"not a model" * 100)
    admin.push_model("shared/fake", "latest", fake)

    answer = stranger.post_json("/api/generate", {"model": "shared/fake", "prompt": "x"})

    assert answer.status in (400, 500)
    assert "not a GGUF" in answer.json["error"]
    assert "\n" not in answer.json["error"]


def test_a_model_larger_than_the_budget_is_refused_with_the_figures(tmp_path: Path, tiny_gguf: Path) -> None:
    with running_server(tmp_path / "data", {"TONNAGE_MEMORY_BUDGET": "1M"}) as server:
        Client(server.host, server.admin_token).push_model("a/tiny", "latest", tiny_gguf)

        answer = Client(server.host).post_json("/api/generate", {"model": "a/tiny", "prompt": "x"})

    assert answer.status == 500
    assert "GiB" in answer.json["error"] or "MiB" in answer.json["error"]
    assert "\n" not in answer.json["error"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 24 MiB; where none may be mounted, the test that needs it says so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@OF_FILES
def test_a_full_disk_answers_507_and_the_session_lives(small_disk: Path) -> None:
    data = os.urandom(2**20)
    with running_server(small_disk / "data") as server:
        admin = Client(server.host, server.admin_token)
        kept = admin.push_blob("a/b", b"stored before")
        location = admin.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"]

        answer = admin.request(
            "PATCH", location, (data for _ in range(48)), {"Transfer-Encoding": "chunked"}, chunked=True
        )

        assert (answer.status, answer.code) == (507, "UNAVAILABLE")
        assert admin.request("GET", location).status == 204
        assert admin.request("GET", f"/v2/a/b/blobs/{kept}").body == b"stored before"
        assert admin.request("DELETE", location).status == 204
        assert admin.push_blob("a/b", data)


@OF_FILES
def test_a_file_size_limit_is_told_like_a_full_disk(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20, 8 * 2**20))

    with running_server(tmp_path / "data", preexec=limit) as server:
        admin = Client(server.host, server.admin_token)
        location = admin.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"]

        answer = admin.request("PATCH", location, os.urandom(16 * 2**20))

        assert (answer.status, answer.code) == (507, "UNAVAILABLE")
        assert admin.push_blob("a/b", b"small enough")


def run_serve(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry", "serve"],
        env={**os.environ, **environ}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_port_in_use_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        finished = run_serve({"TONNAGE_DATA": str(tmp_path / "data"), "TONNAGE_LISTEN": listen})

    assert finished.returncode == 1
    assert one_line(finished.stderr).startswith(f"tonnage: {listen} is in use")


def test_an_unwritable_data_folder_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    finished = run_serve({"TONNAGE_DATA": str(tmp_path / "file" / "data"), "TONNAGE_LISTEN": "127.0.0.1:0"})

    assert finished.returncode == 1
    assert "cannot write to the data folder" in one_line(finished.stderr)


def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path) -> None:
    finished = run_serve({"TONNAGE_DATA": str(tmp_path / "data"), "TONNAGE_WORKERS": "many"})

    assert finished.returncode == 1
    assert "TONNAGE_WORKERS" in one_line(finished.stderr)


def test_a_second_server_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    with running_server(tmp_path / "data"):
        finished = run_serve({"TONNAGE_DATA": str(tmp_path / "data"), "TONNAGE_LISTEN": "127.0.0.1:0"})

    assert finished.returncode == 1
    assert "another tonnage server" in one_line(finished.stderr)


def test_no_compiler_is_one_clear_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "bash", "cut", "env"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    finished = subprocess.run(
        ["make", "test", f"PYTHON={sys.executable}"],
        cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert finished.returncode != 0
    assert "C++ compiler" in finished.stdout + finished.stderr
    assert not (tmp_path / ".venv").exists()


def first_and_rest(
    client: Client, model: str, **options: object
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream of which the first line has come."""
    body = json.dumps({"model": model, "prompt": "go", "options": {**PREDICT_LONG, **options}}).encode()
    connection, response = client.open("POST", "/api/generate", body, timeout_s=60)
    assert "response" in json.loads(response.readline())
    return connection, response


def test_a_killed_runner_ends_its_streams_with_an_error_and_loads_again(tmp_path: Path, tiny_gguf: Path) -> None:
    other_gguf = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    with running_server(tmp_path / "data") as server:
        admin, client = Client(server.host, server.admin_token), Client(server.host)
        admin.push_model("a/one", "latest", tiny_gguf)
        admin.push_model("a/other", "latest", other_gguf)
        other_connection, other = first_and_rest(client, "a/other")
        other_runner = set(server.processes("runtime.runner"))
        connection, stream = first_and_rest(client, "a/one")
        (runner,) = set(server.processes("runtime.runner")) - other_runner

        os.kill(runner, signal.SIGKILL)

        last = json.loads(stream.read().splitlines()[-1])
        assert set(last) == {"error"}
        assert "response" in json.loads(other.readline()), "the other model goes on"
        again = client.post_json(
            "/api/generate", {"model": "a/one", "prompt": "x", "stream": False, "options": {"num_predict": 3}}
        )
        assert (again.status, again.json["done"]) == (200, True)
        connection.close()
        other_connection.close()


def test_a_killed_supervisor_is_back_within_seconds(tmp_path: Path, tiny_gguf: Path) -> None:
    with running_server(tmp_path / "data") as server:
        Client(server.host, server.admin_token).push_model("a/tiny", "latest", tiny_gguf)
        client = Client(server.host)
        request = {"model": "a/tiny", "prompt": "x", "stream": False, "options": {"num_predict": 3}}
        assert client.post_json("/api/generate", request).status == 200
        (supervisor,) = server.processes("runtime.supervisor")
        runners = server.processes("runtime.runner")

        os.kill(supervisor, signal.SIGKILL)

        start = time.monotonic()
        assert client.post_json("/api/generate", request).status == 200
        print(f"answered again after {time.monotonic() - start:.2f} s")
        wait_for(lambda: not any(is_alive(pid) for pid in runners), 5, "the old runners to end")
        assert server.processes("runtime.supervisor") != [supervisor]


def test_sigterm_gives_streams_time_and_leaves_no_process(tmp_path: Path, tiny_gguf: Path) -> None:
    with running_server(tmp_path / "data") as server:
        Client(server.host, server.admin_token).push_model("a/tiny", "latest", tiny_gguf)
        connection, stream = first_and_rest(Client(server.host), "a/tiny", num_predict=300)
        below = server.descendants()

        server.process.send_signal(signal.SIGTERM)

        final = json.loads(stream.read().splitlines()[-1])
        assert final["done"] is True, "a stream that ends within the grace ends as it should"
        assert server.process.wait(20) == 0
        connection.close()
        wait_for(lambda: not any(is_alive(pid) for pid in below), 2, "every process to be gone")


def test_kill_9_of_the_server_leaves_no_orphan(tmp_path: Path, tiny_gguf: Path) -> None:
    server = start_server(tmp_path / "data")
    Client(server.host, server.admin_token).push_model("a/tiny", "latest", tiny_gguf)
    Client(server.host).post_json("/api/generate", {"model": "a/tiny"})
    below = server.descendants()
    assert len(below) >= 4

    server.kill()

    wait_for(lambda: not any(is_alive(pid) for pid in below), 15, "every process to follow its parent")


def test_an_upload_goes_on_after_kill_9_of_the_server(tmp_path: Path) -> None:
    data = os.urandom(40 * 2**20)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server = start_server(tmp_path / "data")
    admin = Client(server.host, server.admin_token)
    location = admin.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"]
    first = admin.request("PATCH", location, data[: 16 * 2**20])
    assert first.status == 202
    path = location.split(server.host, 1)[1]
    with socket.create_connection(server.host.split(":"), 30) as raw:
        head = f"PATCH {path} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Bearer {server.admin_token}\r\n"
        raw.sendall(f"{head}Content-Length: {24 * 2**20}\r\n\r\n".encode() + data[16 * 2**20 : 30 * 2**20])
        below = server.descendants()
        server.kill()
    wait_for(lambda: not any(is_alive(pid) for pid in below), 15, "the web processes to be gone")

    with running_server(tmp_path / "data") as again:
        admin = Client(again.host, server.admin_token)
        status = admin.request("GET", path)
        offset = int(status.headers["X-Upload-Offset"])
        assert status.status == 204
        assert 16 * 2**20 <= offset <= 30 * 2**20
        wait_for(
            lambda: admin.request("PATCH", path, b"", {"Content-Length": "0"}).status == 202,
            40,
            "the dead writer's claim",
        )
        assert admin.request("PATCH", path, data[offset:]).status == 202
        assert admin.request("PUT", f"{path}?digest={digest}").status == 201
        assert admin.request("GET", f"/v2/a/b/blobs/{digest}").body == data


def test_a_web_worker_stays_small_while_a_gibibyte_passes(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    with blob.open("wb") as file:
        piece = os.urandom(2**20)
        for number in range(1024):
            file.write(number.to_bytes(8, "big") + piece[8:])
    with running_server(tmp_path / "data", {"TONNAGE_WORKERS": "1"}) as server:
        admin = Client(server.host, server.admin_token)
        digest = admin.push_blob("a/big", blob)
        connection, response = admin.open("GET", f"/v2/a/big/blobs/{digest}")
        received = 0
        while piece := response.read(2**20):
            received += len(piece)
        connection.close()
        assert received == 2**30
        peaks = {pid: peak_memory_mib(pid) for pid in server.processes("registry.workers")}

    print(f"peak resident memory of the web processes, MiB: {sorted(peaks.values())}")
    assert len(peaks) == 2
    assert max(peaks.values()) < 150


def peak_memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def test_nothing_a_failed_push_left_is_listed(admin: Client, stranger: Client, tmp_path: Path) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {},
        "layers": [{"mediaType": MODEL_TYPE, "digest": ZEROES, "size": 5}],
    }
    assert admin.put_manifest("shared/half", "latest", json.dumps(manifest).encode()).status == 400

    listed = [model["name"] for model in stranger.request("GET", "/api/tags").json["models"]]

    assert not [name for name in listed if name.startswith("shared/half")]


def test_one_odd_model_hides_no_other(admin: Client, stranger: Client, tiny_model: str, tiny_gguf: Path) -> None:
    config = b'{"model_format":"gguf","model_family":"\\ud800","capabilities":["\\udfff"]}'
    layers = [
        {"mediaType": MODEL_TYPE, "digest": admin.push_blob("shared/odd", tiny_gguf), "size": tiny_gguf.stat().st_size}
    ]
    descriptor = {"mediaType": CONFIG_TYPE, "digest": admin.push_blob("shared/odd", config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor, "layers": layers}
    assert admin.put_manifest("shared/odd", "latest", json.dumps(manifest).encode()).status == 201

    listed = stranger.request("GET", "/api/tags")

    assert listed.status == 200
    assert tiny_model in [model["name"] for model in listed.json["models"]]
    assert stranger.post_json("/api/show", {"model": "shared/odd"}).status == 200


def test_eight_streams_say_what_each_says_alone(stranger: Client, tiny_model: str) -> None:
    def ask(topic: int) -> str:
        body = {"model": tiny_model, "prompt": f"tell {topic}", "options": {"temperature": 0, "num_predict": 64}}
        lines = list(stranger.lines("/api/generate", body))
        assert lines[-1]["done"] is True
        return "".join(line["response"] for line in lines)

    alone = [ask(topic) for topic in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))

    assert together == alone
