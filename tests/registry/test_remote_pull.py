"""Pulling from a registry that fails: the right file under its name, or none and one clear error."""

import fcntl
import json
import os
import resource

import pytest

from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import (
    AnswerInvalid,
    ConnectionCut,
    DigestMismatch,
    LocalFileUnfit,
    NotFound,
    RedirectRefused,
    RemoteError,
    ServerBusy,
)
from registry.remotes.http import Outbound
from registry.remotes.progress import LineProgress
from registry.remotes.pull import Pull
from storage.reference import RepositoryName, Tag
from tests.faulty_registry import Fault, FaultyRegistry, faulty_registry
from tests.registry.unfit_files import UNFIT, VICTIM

MIB = 1024 * 1024
MODEL = "application/vnd.ollama.image.model"


@pytest.fixture
def registry():
    with faulty_registry() as running:
        yield running


@pytest.fixture
def data() -> bytes:
    return b"GGUF" + os.urandom(5 * MIB)


def pull_of(registry: FaultyRegistry, folder, token: str | None = None) -> Pull:
    http = Outbound(connect_s=2, read_s=0.5)
    remote = RemoteRepository(Authenticator(http, token=token), registry.url, RepositoryName("a/m"))
    return Pull(remote, LineProgress((folder / "log").open("a")), first_pause_s=0.01)


def fetch(registry: FaultyRegistry, folder, **options) -> bytes:
    pull = pull_of(registry, folder, **options)
    pull.fetch(pull.weights_layer(Tag("v1")), folder / "m.gguf")
    return (folder / "m.gguf").read_bytes()


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"log"}


@pytest.mark.parametrize("size", [1, 5, 3 * MIB])
def test_the_weights_arrive_and_nothing_else_stays(registry, tmp_path, size):
    registry.add_model("v1", data := os.urandom(size))

    assert fetch(registry, tmp_path) == data
    assert files(tmp_path) == {"m.gguf"}


def test_an_empty_layer_needs_no_request(registry, tmp_path):
    registry.add_model("v1", b"")

    assert fetch(registry, tmp_path) == b""


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("GET", "blobs", cut_after=0)],
        [Fault("GET", "blobs", cut_after=2 * MIB), Fault("GET", "blobs", cut_after=1 * MIB)],
        [Fault("GET", "blobs", stall_after=1 * MIB)],
        [Fault("GET", "blobs", status=503, times=2)],
        [Fault("GET", "blobs", status=416)],
    ],
    ids=["cut-at-once", "cut-twice", "stall", "busy", "range-refused"],
)
def test_failures_in_mid_blob_are_overcome(registry, tmp_path, data, faults):
    registry.add_model("v1", data)
    (tmp_path / "log").touch()
    registry.faults += faults
    if faults[0].status == 416:
        registry.faults.insert(0, Fault("GET", "blobs", cut_after=1 * MIB))

    assert fetch(registry, tmp_path) == data


def test_after_a_cut_only_the_rest_is_sent(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.faults.append(Fault("GET", "blobs", cut_after=4 * MIB))

    fetch(registry, tmp_path)

    assert registry.sent_bytes == len(data)


def test_many_cuts_are_overcome_as_long_as_there_is_progress(registry, tmp_path):
    registry.add_model("v1", data := os.urandom(24 * MIB))
    registry.faults.append(Fault("GET", "blobs", cut_after=2 * MIB, times=11))

    assert fetch(registry, tmp_path) == data


def test_cuts_without_progress_end_with_what_is_there_kept(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.faults.append(Fault("GET", "blobs", cut_after=1000, times=1000))

    with pytest.raises(ConnectionCut):
        fetch(registry, tmp_path)

    assert registry.count("GET", "blobs") == 6
    [partial] = files(tmp_path)
    assert partial.endswith(".partial")


def test_the_next_pull_goes_on_from_the_partial_file(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.faults += [Fault("GET", "blobs", cut_after=3 * MIB), Fault("GET", "blobs", status=403)]
    with pytest.raises(RemoteError):
        fetch(registry, tmp_path)

    assert fetch(registry, tmp_path) == data
    assert registry.sent_bytes == len(data)


@pytest.mark.parametrize("damage", [b"x" * 1000, b"x" * (6 * MIB)], ids=["wrong-beginning", "too-long"])
def test_a_partial_file_of_other_bytes_does_no_harm(registry, tmp_path, data, damage):
    digest = registry.add_model("v1", data)
    (tmp_path / f"m.gguf.{digest[7:19]}.partial").write_bytes(damage)

    assert fetch(registry, tmp_path) == data


def test_a_server_that_knows_no_ranges_sends_all_again(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.knows_ranges = False
    registry.faults.append(Fault("GET", "blobs", cut_after=1 * MIB))

    assert fetch(registry, tmp_path) == data


def test_wrong_bytes_never_get_the_name(registry, tmp_path, data):
    registry.blobs[registry.add_model("v1", data)] = data[:-1] + b"!"
    (tmp_path / "m.gguf").write_bytes(b"the old model")

    with pytest.raises(DigestMismatch, match="sent other bytes"):
        fetch(registry, tmp_path)

    assert files(tmp_path) == {"m.gguf"}
    assert (tmp_path / "m.gguf").read_bytes() == b"the old model"


@pytest.mark.parametrize(
    "answer",
    [
        Fault("GET", "blobs", status=206, headers={"Content-Range": "bytes 7-9/10"}, body=b"xyz"),
        Fault("GET", "blobs", status=206, body=b"xyz"),
        Fault("GET", "blobs", status=200, body=b"short"),
        Fault("GET", "blobs", status=200, headers={"Content-Length": "-5"}),
        Fault("GET", "blobs", status=200, headers={"Content-Encoding": "gzip"}),
        Fault("GET", "manifests", status=200, body=b"{"),
        Fault("GET", "manifests", status=200, body=b"[" * 100_000),
        Fault("GET", "manifests", status=200, body=b'{"layers":[]}'),
        Fault("GET", "manifests", status=200, body=b'{"manifests":[]}'),
        Fault("GET", "manifests", status=200, body=b'{"manifests":[{"digest":"../../x"}]}'),
        Fault("GET", "manifests", status=200, body=b"x" * (4 * MIB + 1)),
        Fault("GET", "manifests", status=200, body=b"{}", headers={"Docker-Content-Digest": "sha256:" + "0" * 64}),
    ],
    ids=lambda fault: f"{fault.method}-{fault.path}-{(fault.body or str(fault.headers).encode())[:20]}",
)
def test_an_answer_against_the_protocol_is_refused(registry, tmp_path, data, answer):
    registry.add_model("v1", data)
    answer.times = 99
    registry.faults.append(answer)

    with pytest.raises((AnswerInvalid, DigestMismatch)):
        fetch(registry, tmp_path)

    assert "m.gguf" not in files(tmp_path)


def test_a_blob_longer_than_its_descriptor_is_refused(registry, tmp_path, data):
    registry.add_model("v1", data, size=1000)

    with pytest.raises(AnswerInvalid):
        fetch(registry, tmp_path)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_another_host_are_followed_without_credentials(tmp_path, data, status):
    with faulty_registry() as store, faulty_registry(users={"token": "secret"}, blob_status=status) as registry:
        registry.blob_location = store.url
        registry.add_model("v1", data)
        store.add(data)
        store.faults.append(Fault("GET", "cdn", cut_after=1 * MIB))

        assert fetch(registry, tmp_path, token="secret") == data
        assert store.sent_bytes == len(data)
        assert all("Authorization" not in request.headers for request in store.requests)


def test_an_empty_answer_with_a_location_is_followed(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.has_empty_probe = True

    assert fetch(registry, tmp_path) == data


def test_a_circle_of_redirects_ends(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.faults.append(Fault("GET", "blobs", status=302, headers={"Location": "?again"}, times=999))

    with pytest.raises(RedirectRefused):
        fetch(registry, tmp_path)


def test_an_index_leads_to_the_manifest_without_a_platform(registry, tmp_path, data):
    registry.add_model("v1", data)
    raw, _ = registry.manifests.pop("v1")
    digest = registry.add(raw)
    registry.manifests[digest] = (raw, "application/vnd.oci.image.manifest.v1+json")
    children = [{"digest": registry.add(b"other"), "platform": {"os": "linux"}}, {"digest": digest}]
    registry.manifests["v1"] = (json.dumps({"manifests": children}).encode(), "application/vnd.oci.image.index.v1+json")

    assert fetch(registry, tmp_path) == data


@pytest.mark.parametrize(
    "descriptor",
    [
        {"mediaType": "application/vnd.docker.ai.gguf.v3"},
        {"mediaType": "application/octet-stream", "annotations": {"org.opencontainers.image.title": "m.gguf"}},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar"},
    ],
    ids=["media-type", "title", "first-bytes"],
)
def test_weights_of_other_tools_are_found(registry, tmp_path, data, descriptor):
    registry.add_model("v1", data, **descriptor)

    assert fetch(registry, tmp_path) == data


def test_an_unknown_model_is_named(registry, tmp_path):
    with pytest.raises(NotFound, match="has no a/m:v1"):
        pull_of(registry, tmp_path).weights_layer(Tag("v1"))


def test_a_manifest_is_asked_for_again_while_the_server_is_busy(registry, tmp_path, data):
    registry.add_model("v1", data)
    registry.faults.append(Fault("GET", "manifests", status=502, times=2))

    assert fetch(registry, tmp_path) == data


def test_lasting_5xx_ends_with_the_servers_words(registry, tmp_path):
    registry.faults.append(
        Fault("GET", "manifests", status=500, body=b'{"error":"\\u001b[2Jout of \\n luck"}', times=99)
    )

    with pytest.raises(ServerBusy, match="out of luck"):
        pull_of(registry, tmp_path).weights_layer(Tag("v1"))


def test_a_second_pull_of_the_same_file_is_refused_while_one_runs(registry, tmp_path, data):
    digest = registry.add_model("v1", data)
    with (tmp_path / f"m.gguf.{digest[7:19]}.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(LocalFileUnfit, match="another pull"):
            fetch(registry, tmp_path)


def test_a_symbolic_link_in_place_of_the_partial_file_is_not_followed(registry, tmp_path, data):
    digest = registry.add_model("v1", data)
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / f"m.gguf.{digest[7:19]}.partial").symlink_to(tmp_path / "victim")

    with pytest.raises(LocalFileUnfit):
        fetch(registry, tmp_path)

    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize(("make", "said"), UNFIT)
def test_a_partial_file_that_others_may_have_made_or_can_change_is_refused(registry, tmp_path, make, said):
    digest = registry.add_model("v1", b"GGUF")
    make(tmp_path / f"m.gguf.{digest[7:19]}.partial")

    with pytest.raises(LocalFileUnfit, match=f"{said}.*remove it"):
        fetch(registry, tmp_path)

    assert "m.gguf" not in files(tmp_path)
    assert all((tmp_path / name).read_bytes() == VICTIM for name in files(tmp_path) if (tmp_path / name).is_file())


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_others_may_do_with_the_file_what_the_umask_says_but_only_once_it_is_whole(
    registry, tmp_path, data, mask, mode
):
    registry.add_model("v1", data)
    registry.faults.append(Fault("GET", "blobs", cut_after=1000, times=6))
    before = os.umask(mask)
    try:
        with pytest.raises(ConnectionCut):
            fetch(registry, tmp_path)
        [partial] = files(tmp_path)
        while_partial = (tmp_path / partial).stat().st_mode & 0o777

        fetch(registry, tmp_path)
    finally:
        os.umask(before)

    assert (while_partial, (tmp_path / "m.gguf").stat().st_mode & 0o777) == (mode & ~0o022, mode)


def test_a_full_disk_is_named_and_what_came_is_kept(registry, tmp_path, data):
    digest = registry.add_model("v1", data)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 * MIB, limits[1]))
    try:
        with pytest.raises(LocalFileUnfit, match="what has come is kept"):
            fetch(registry, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / f"m.gguf.{digest[7:19]}.partial").read_bytes() == data[:MIB]
