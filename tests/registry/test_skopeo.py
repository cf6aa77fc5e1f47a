"""skopeo against a real server: what docker's and podman's library does with us."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, running_server

NO_SKOPEO = pytest.mark.skipif(
    not shutil.which("skopeo") and not os.environ.get("CI"), reason="skopeo is not installed"
)
pytestmark = NO_SKOPEO

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IN_THE_CLEAR = ("--src-tls-verify=false", "--dest-tls-verify=false")


@dataclass
class Skopeo:
    """The command, with credentials of its own."""

    server: Server
    folder: Path

    def run(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command, *rest = arguments
        finished = subprocess.run(
            ["skopeo", "--insecure-policy", command, "--authfile", str(self.folder / "auth.json"), *rest],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)},
        )
        assert not check or finished.returncode == 0, finished.stderr
        return finished

    def login(self, token: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        options = ("--tls-verify=false", "--username", "anyone", "--password-stdin")
        return self.run("login", *options, self.server.host, stdin=token, check=check)

    def copy(self, source: str, target: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("copy", "--preserve-digests", *IN_THE_CLEAR, source, target, check=check)

    def raw(self, name: str) -> bytes:
        return self.run("inspect", "--tls-verify=false", "--raw", self.at(name)).stdout.encode()

    def at(self, name: str) -> str:
        return f"docker://{self.server.host}/{name}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("skopeo") / "data") as running:
        running.run("namespace", "create", "acme", "--private")
        yield running


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    """Secrets by what they allow."""
    whole = server.create_token("all", "pull", "push", "delete")
    return {"all": whole, "pull": server.create_token("reader", "pull")}


@pytest.fixture
def skopeo(server: Server, tokens: dict[str, str], tmp_path: Path) -> Skopeo:
    """Logged in with a token that may do everything to repositories."""
    command = Skopeo(server, tmp_path)
    command.login(tokens["all"])
    return command


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(text: str) -> tuple[bytes, list[bytes]]:
    """An image of one file: the manifest, and its blobs, the config first."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("weights")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    layer = gzip.compress(archive.getvalue(), mtime=0)
    root = {"type": "layers", "diff_ids": [digest_of(archive.getvalue())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
    types = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
    first, second = (
        {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        for media_type, data in zip(types, (config, layer), strict=True)
    )
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": first, "layers": [second]}
    return json.dumps(manifest, indent=3).encode(), [config, layer]


def write_dir(folder: Path, text: str) -> tuple[str, bytes]:
    """skopeo's plain folder of an image; how skopeo calls it, and the manifest."""
    manifest, blobs = image(text)
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(manifest)
    for blob in blobs:
        (folder / digest_of(blob).removeprefix("sha256:")).write_bytes(blob)
    return f"dir:{folder}", manifest


def write_oci(folder: Path, text: str) -> tuple[str, bytes]:
    """An OCI image layout. Spec: "OCI Image Layout Specification"."""
    manifest, blobs = image(text)
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for blob in (manifest, *blobs):
        (folder / "blobs" / "sha256" / digest_of(blob).removeprefix("sha256:")).write_bytes(blob)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{folder}:v1", manifest


LAYOUTS = {"dir": write_dir, "oci": write_oci}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_goes_there_and_back(skopeo: Skopeo, tmp_path: Path, layout: str) -> None:
    source, manifest = LAYOUTS[layout](tmp_path / "source", layout)

    skopeo.copy(source, skopeo.at(f"acme/{layout}:v1"))
    skopeo.copy(skopeo.at(f"acme/{layout}:v1"), f"dir:{tmp_path}/back")
    skopeo.copy(skopeo.at(f"acme/{layout}:v1"), f"oci:{tmp_path}/layout:v1")

    assert (tmp_path / "back" / "manifest.json").read_bytes() == manifest
    for blob in image(layout)[1]:
        assert (tmp_path / "back" / digest_of(blob).removeprefix("sha256:")).read_bytes() == blob
        assert (tmp_path / "layout" / "blobs" / "sha256" / digest_of(blob).removeprefix("sha256:")).is_file()


def test_an_image_is_copied_between_repositories(skopeo: Skopeo, tmp_path: Path) -> None:
    source, manifest = write_dir(tmp_path / "source", "between")
    skopeo.copy(source, skopeo.at("acme/first:v1"))

    skopeo.copy(skopeo.at("acme/first:v1"), skopeo.at("other/second:v2"))

    assert skopeo.raw("other/second:v2") == manifest
    assert skopeo.raw(f"other/second@{digest_of(manifest)}") == manifest


def test_an_image_is_inspected(skopeo: Skopeo, tmp_path: Path) -> None:
    source, manifest = write_dir(tmp_path / "source", "inspected")
    for tag in ("v2", "v10", "V1"):
        skopeo.copy(source, skopeo.at(f"acme/inspected:{tag}"))

    about = json.loads(skopeo.run("inspect", "--tls-verify=false", skopeo.at("acme/inspected:v2")).stdout)
    tags = json.loads(skopeo.run("list-tags", "--tls-verify=false", skopeo.at("acme/inspected")).stdout)

    assert about["Digest"] == digest_of(manifest)
    assert about["Layers"] == [digest_of(image("inspected")[1][1])]
    assert about["RepoTags"] == tags["Tags"] == ["V1", "v10", "v2"]
    assert skopeo.raw("acme/inspected:v10") == manifest


def test_a_deleted_image_is_gone(skopeo: Skopeo, tmp_path: Path) -> None:
    source, _ = write_dir(tmp_path / "source", "deleted")
    skopeo.copy(source, skopeo.at("acme/deleted:v1"))

    skopeo.run("delete", "--tls-verify=false", skopeo.at("acme/deleted:v1"))

    gone = skopeo.run("inspect", "--tls-verify=false", skopeo.at("acme/deleted:v1"), check=False)
    assert gone.returncode != 0
    assert "manifest unknown" in gone.stderr


def test_a_wrong_token_does_not_log_in(skopeo: Skopeo) -> None:
    refused = skopeo.login(f"tng_{'A' * 43}", check=False)

    assert refused.returncode != 0
    assert "invalid username/password" in refused.stderr


def test_a_reader_reads_and_is_told_that_it_may_not_push(
    server: Server, skopeo: Skopeo, tokens: dict[str, str], tmp_path: Path
) -> None:
    source, manifest = write_dir(tmp_path / "source", "reader")
    skopeo.copy(source, skopeo.at("acme/read:v1"))
    (tmp_path / "reader").mkdir()
    reader = Skopeo(server, tmp_path / "reader")
    reader.login(tokens["pull"])

    refused = reader.copy(write_dir(tmp_path / "new", "new")[0], reader.at("acme/new:v1"), check=False)
    kept = reader.run("delete", "--tls-verify=false", reader.at("acme/read:v1"), check=False)

    assert reader.raw("acme/read:v1") == manifest
    assert refused.returncode != 0
    assert "token reader does not allow pushing to this repository" in refused.stderr
    assert kept.returncode != 0
    assert skopeo.raw("acme/read:v1") == manifest


def test_a_stranger_is_asked_to_log_in(server: Server, skopeo: Skopeo, tmp_path: Path) -> None:
    source, _ = write_dir(tmp_path / "source", "private")
    skopeo.copy(source, skopeo.at("acme/private:v1"))
    skopeo.run("logout", server.host)

    refused = skopeo.run("inspect", "--tls-verify=false", skopeo.at("acme/private:v1"), check=False)

    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr
