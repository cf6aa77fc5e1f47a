"""Pushing to a registry that fails: the right bytes arrive, or one clear error; nothing is sent twice for nothing."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import (
    AddressExpired,
    AnswerInvalid,
    DigestMismatch,
    Forbidden,
    RedirectRefused,
    RemoteError,
    ServerBusy,
)
from registry.remotes.http import Outbound
from registry.remotes.package import LocalBlob, build_package, go_json
from registry.remotes.progress import LineProgress
from registry.remotes.push import Push
from registry.remotes.uploads import UploadNotes
from storage.digest import Digest
from storage.reference import RepositoryName, Tag
from tests.faulty_registry import Fault, FaultyRegistry, faulty_registry
from tests.server import wait_for
from tests.tiny_gguf import write_tiny_gguf

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def registry():
    with faulty_registry() as running:
        yield running


@pytest.fixture
def data() -> bytes:
    return os.urandom(5 * MIB)


def blob_of(folder: Path, data: bytes) -> LocalBlob:
    path = folder / "weights"
    path.write_bytes(data)
    return LocalBlob("application/octet-stream", Digest.of(data), len(data), path=path)


def push_of(registry: FaultyRegistry, folder: Path, **options: Any) -> Push:
    http = Outbound(connect_s=2, read_s=2)
    remote = RemoteRepository(Authenticator(http), registry.url, RepositoryName("a/m"), is_pushing=True)
    progress = LineProgress((folder / "log").open("a"))
    return Push(remote, UploadNotes(folder / "notes"), progress, first_pause_s=0.01, **options)


@pytest.mark.parametrize("size", [0, 1, 2, 70_000])
def test_a_blob_of_any_size_arrives(registry, tmp_path, size):
    blob = blob_of(tmp_path, os.urandom(size))

    push_of(registry, tmp_path).push_blob(blob)

    assert registry.blobs[str(blob.digest)] == blob.path.read_bytes()


def test_a_blob_that_is_there_is_not_sent(registry, tmp_path, data):
    registry.add(data)

    push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert registry.count("POST") == 0


@pytest.mark.parametrize("cut_after", [0, 2, 1 * MIB, 5 * MIB])  # `Range: 0-0` makes one byte look like none
def test_a_cut_part_goes_on_where_the_registry_stands(registry, tmp_path, data, cut_after):
    registry.faults.append(Fault("PATCH", "uploads", cut_after=cut_after))
    blob = blob_of(tmp_path, data)

    push_of(registry, tmp_path).push_blob(blob)

    assert registry.blobs[str(blob.digest)] == data
    assert registry.patched_bytes == len(data)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("HEAD", "blobs", status=503),
        Fault("POST", "uploads", status=500),
        Fault("POST", "uploads", lose_reply=True),
        Fault("PATCH", "uploads", status=502),
        Fault("PATCH", "uploads", status=429, headers={"Retry-After": "0"}),
        Fault("PATCH", "uploads", lose_reply=True),
        Fault("PATCH", "uploads", status=416, headers={"Range": "0-9"}),
        Fault("PATCH", "uploads", status=404),
        Fault("PUT", "uploads", status=500),
        Fault("PUT", "uploads", lose_reply=True),
    ],
    ids=lambda fault: f"{fault.method}-{fault.status or 'lost'}",
)
def test_one_failure_anywhere_does_not_fail_the_push(registry, tmp_path, data, fault):
    registry.faults.append(fault)
    blob = blob_of(tmp_path, data)

    push_of(registry, tmp_path).push_blob(blob)

    assert registry.blobs[str(blob.digest)] == data


def test_a_lost_answer_to_the_last_request_sends_nothing_again(registry, tmp_path, data):
    registry.faults.append(Fault("PUT", "uploads", lose_reply=True))

    push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert registry.patched_bytes == len(data)


def test_lasting_failure_ends_after_a_bounded_number_of_attempts(registry, tmp_path, data):
    registry.faults.append(Fault("PATCH", "uploads", status=500, body=b"disk on fire", times=1000))

    with pytest.raises(ServerBusy, match="disk on fire"):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert registry.count("PATCH") == 6


@pytest.mark.parametrize("status, error", [(403, Forbidden), (400, RemoteError), (507, RemoteError)])
def test_a_refusal_ends_at_once(registry, tmp_path, data, status, error):
    registry.faults.append(Fault("POST", "uploads", status=status, body=b'{"error":"no more room for you"}', times=9))

    with pytest.raises(error, match="no more room for you"):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert registry.count("POST") == 1


def test_a_file_that_changed_ends_with_a_clear_error(registry, tmp_path, data):
    blob = blob_of(tmp_path, data)
    blob.path.write_bytes(data[::-1])

    with pytest.raises(DigestMismatch, match="did the file change"):
        push_of(registry, tmp_path).push_blob(blob)


def test_a_file_that_became_shorter_ends_with_a_clear_error(registry, tmp_path, data):
    blob = blob_of(tmp_path, data)
    os.truncate(blob.path, MIB)

    with pytest.raises(RemoteError, match="became shorter"):
        push_of(registry, tmp_path).push_blob(blob)


def test_a_relative_location_is_resolved(registry, tmp_path, data):
    registry.relative_locations = True
    blob = blob_of(tmp_path, data)

    push_of(registry, tmp_path).push_blob(blob)

    assert str(blob.digest) in registry.blobs


def test_parts_redirected_to_a_store_go_there_without_credentials(tmp_path, data):
    with faulty_registry() as store, faulty_registry(users={"token": "secret"}) as registry:
        registry.part_store, store.sessions = store.url, registry.sessions
        http = Outbound(connect_s=2, read_s=2)
        remote = RemoteRepository(
            Authenticator(http, token="secret"), registry.url, RepositoryName("a/m"), is_pushing=True
        )
        blob = blob_of(tmp_path, data)

        Push(remote, UploadNotes(tmp_path / "notes"), LineProgress(sys.stderr)).push_blob(blob)

        assert registry.blobs[str(blob.digest)] == data
        assert store.count("PUT", "/store/") == 1
        assert all("Authorization" not in request.headers for request in store.requests)


def test_an_address_in_the_store_that_has_expired_is_asked_for_anew(registry, tmp_path, data):
    registry.part_store = registry.url
    registry.faults.append(Fault("PUT", "/store/", status=403, body=b"Request has expired"))

    push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert list(registry.blobs.values()) == [data]
    assert registry.count("PATCH") == 2


def test_a_store_that_takes_nothing_ends_the_push(registry, tmp_path, data):
    registry.part_store = registry.url
    registry.faults.append(Fault("PUT", "/store/", status=403, body=b"not today", times=99))

    with pytest.raises(AddressExpired, match="not today"):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert registry.count("PATCH") == 3


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("900", 30)])
def test_a_busy_registry_says_how_long_to_wait(registry, tmp_path, data, asked, waited):
    registry.faults.append(Fault("PATCH", "uploads", status=429, headers={"Retry-After": asked}))
    pauses: list[float] = []

    push_of(registry, tmp_path, sleep=pauses.append).push_blob(blob_of(tmp_path, data))

    assert pauses == [waited]


def test_a_session_that_somebody_else_keeps_busy_is_left_for_one_of_our_own(registry, tmp_path, data):
    refused = Fault("PATCH", "uploads/s0", status=416, headers={"Range": f"0-{MIB - 1}"}, times=99)
    registry.faults += [Fault("PATCH", "uploads", cut_after=MIB), refused]
    pauses: list[float] = []

    push_of(registry, tmp_path, sleep=pauses.append).push_blob(blob_of(tmp_path, data))

    assert list(registry.blobs.values()) == [data]
    assert (len(pauses), registry.count("POST")) == (1 + 5, 2)


def test_a_note_is_written_once_for_an_address_that_stays(registry, tmp_path, data):
    class Counting(UploadNotes):
        saved: list[str] = []  # noqa: RUF012  # of this test alone

        def save(self, remote: RemoteRepository, digest: Digest, url: str) -> None:
            self.saved.append(url)
            super().save(remote, digest, url)

    registry.faults += [Fault("PATCH", "uploads", cut_after=each * MIB) for each in (1, 1, 1)]
    remote = RemoteRepository(Authenticator(Outbound()), registry.url, RepositoryName("a/m"), is_pushing=True)

    Push(remote, Counting(tmp_path / "notes"), LineProgress(sys.stderr), first_pause_s=0.01).push_blob(
        blob_of(tmp_path, data)
    )

    assert Counting.saved == [f"{registry.url}/v2/a/m/blobs/uploads/s0?_state=x"]


def test_redirects_in_a_circle_end(registry, tmp_path, data):
    location = {"Location": "/v2/a/m/blobs/uploads/s0"}
    registry.faults.append(Fault("PATCH", "uploads", status=307, headers=location, times=1000))

    with pytest.raises(RedirectRefused, match="more than 8 times"):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PATCH", "uploads", status=202, headers={"Range": "0-99999999"}, times=99),
        Fault("POST", "uploads", status=202, times=99),
        Fault("POST", "uploads", status=202, headers={"Location": "ftp://h/x"}, times=99),
        Fault("HEAD", "blobs", status=200, headers={"Content-Length": "5"}, times=99),
    ],
    ids=["impossible-range", "no-location", "foreign-scheme", "other-size"],
)
def test_an_answer_against_the_protocol_is_refused(registry, tmp_path, data, fault):
    registry.faults.append(fault)

    with pytest.raises((AnswerInvalid, RedirectRefused)):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))


def test_a_push_killed_in_mid_part_goes_on_in_the_next_process(registry, tmp_path):
    data = os.urandom(24 * MIB)
    blob = blob_of(tmp_path, data)
    registry.faults.append(
        Fault("PATCH", "uploads", cut_after=8 * MIB)
    )  # then the child is killed, before it can go on
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, registry.url, str(tmp_path), str(blob.digest), str(len(data))], cwd=ROOT
    )
    try:
        wait_for(lambda: registry.patched_bytes >= 8 * MIB, 20, "the first part to be cut")
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(10)
    assert str(blob.digest) not in registry.blobs

    push_of(registry, tmp_path).push_blob(blob)

    assert registry.blobs[str(blob.digest)] == data
    assert registry.patched_bytes == len(data)
    assert not list((tmp_path / "notes").iterdir())


_CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from registry.remotes.credentials import Authenticator
    from registry.remotes.endpoint import RemoteRepository
    from registry.remotes.http import Outbound
    from registry.remotes.package import LocalBlob
    from registry.remotes.progress import LineProgress
    from registry.remotes.push import Push
    from registry.remotes.uploads import UploadNotes
    from storage.digest import Digest
    from storage.reference import RepositoryName

    url, folder, digest, size = sys.argv[1], Path(sys.argv[2]), Digest.parse(sys.argv[3]), int(sys.argv[4])
    remote = RemoteRepository(Authenticator(Outbound()), url, RepositoryName("a/m"), is_pushing=True)
    push = Push(remote, UploadNotes(folder / "notes"), LineProgress(sys.stderr), first_pause_s=20)
    push.push_blob(LocalBlob("x", digest, size, path=folder / "weights"))
    """
)


@pytest.mark.parametrize(
    "note", [b"", b"{", b'{"url": "file:///etc/passwd", "at": 1e12}', b'{"url": 5}', b"[]", b"\xff"]
)
def test_a_damaged_note_means_a_new_session(registry, tmp_path, data, note):
    push, blob = push_of(registry, tmp_path), blob_of(tmp_path, data)
    registry.faults.append(Fault("PATCH", "uploads", status=403))
    with pytest.raises(Forbidden):
        push.push_blob(blob)
    next((tmp_path / "notes").iterdir()).write_bytes(note)

    push.push_blob(blob)

    assert str(blob.digest) in registry.blobs


def test_notes_are_for_their_owner_only(registry, tmp_path, data):
    registry.faults.append(Fault("PATCH", "uploads", status=403))
    with pytest.raises(Forbidden):
        push_of(registry, tmp_path).push_blob(blob_of(tmp_path, data))

    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "notes").iterdir()] == [0o600]


def test_a_model_arrives_in_ollamas_form(registry, tmp_path):
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "template").write_text("{{ .Prompt }} <|end|>")
    (tmp_path / "licence").write_text("free & open")
    package = build_package(gguf, template=tmp_path / "template", system="Be brief.", licenses=(tmp_path / "licence",))

    push_of(registry, tmp_path).push(package, Tag("v1"))

    raw, media_type = registry.manifests["v1"]
    manifest = json.loads(raw)
    assert media_type == manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert raw == json.dumps(manifest, separators=(",", ":")).encode()
    assert list(manifest) == ["schemaVersion", "mediaType", "config", "layers"]
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
    assert kinds == ["model", "template", "system", "license"]
    assert manifest["layers"][0]["digest"] == "sha256:" + hashlib.sha256(gguf.read_bytes()).hexdigest()
    config = registry.blobs[manifest["config"]["digest"]]
    assert config.startswith(b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"')
    assert config.endswith(b'"architecture":"amd64","os":"linux"}\n')


def test_json_is_escaped_as_go_does():
    assert (
        go_json({"stop": ["<|im_end|>", "a&b", "\u2028é"]})
        == b'{"stop":["\\u003c|im_end|\\u003e","a\\u0026b","\\u2028\xc3\xa9"]}'
    )


def test_the_config_of_the_specification_has_its_digest():
    config = {
        "model_format": "gguf", "model_family": "test", "model_families": ["test"], "model_type": "0",
        "file_type": "unknown", "architecture": "amd64", "os": "linux",
    }  # fmt: skip

    assert (
        Digest.of(go_json(config) + b"\n").encoded == "99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"
    )


def test_a_file_that_is_no_model_is_refused_before_any_request(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" * 100)

    with pytest.raises(RemoteError, match="not a GGUF file"):
        build_package(tmp_path / "x.gguf")
