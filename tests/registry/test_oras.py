"""oras, the Python library, against a real server: artifacts of any type, with annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import oras.provider
import pytest
from oras.oci import Subject

from tests.client import Client
from tests.server import Server, running_server

GGUF_TYPE = "application/vnd.example.weights.v1+gguf"
CONFIG_TYPE = "application/vnd.example.config.v1+json"
WEIGHTS = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("oras") / "data") as running:
        running.run("namespace", "create", "acme", "--private")
        running.run("namespace", "create", "open", "--public")
        yield running


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    """Secrets by what they allow."""
    whole = server.create_token("all", "pull", "push", "delete")
    return {"all": whole, "pull": server.create_token("reader", "pull")}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library pushes only what is below the working folder, reads ~/.docker, and asks five times when refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("oras.decorator.time", SimpleNamespace(sleep=lambda pause_s: None))


def client(server: Server, token: str = "", backend: str = "token") -> oras.provider.Registry:
    """One for each operation: the library keeps its first bearer token, however narrow, as long as it lives."""
    registry = oras.provider.Registry(hostname=server.host, insecure=True, auth_backend=backend)
    if token:
        registry.login("anyone", token, hostname=server.host, config_path=str(Path.cwd() / "docker.json"))
    return registry


def push(server: Server, token: str, name: str, **options: object) -> dict[str, object]:
    """Push weights and a card; the manifest's place in the words of a descriptor."""
    Path("model.gguf").write_bytes(WEIGHTS)
    Path("card.md").write_text("a model\n")
    Path("config.json").write_text('{"parameters": 7}')
    Path("notes.json").write_text(
        json.dumps({"$manifest": {"vendor": "acme"}, "$config": {"kind": "test"}, "card.md": {"language": "en"}})
    )
    answer = client(server, token).push(
        target=f"{server.host}/{name}",
        files=[f"model.gguf:{GGUF_TYPE}", "card.md:text/markdown"],
        manifest_config=f"config.json:{CONFIG_TYPE}",
        annotation_file="notes.json",
        manifest_annotations={"license": "CC0 <&>"},
        **options,
    )
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": answer.headers["Docker-Content-Digest"],
        "size": int(answer.request.headers["Content-Length"]),
    }


@pytest.mark.parametrize("options", [{}, {"do_chunked": True, "chunk_size": 1_000_000}], ids=["whole", "in chunks"])
def test_an_artifact_goes_there_and_back(
    server: Server, tokens: dict[str, str], tmp_path: Path, options: dict[str, object]
) -> None:
    push(server, tokens["all"], f"acme/files-{len(options)}:v1", **options)

    files = client(server, tokens["pull"]).pull(
        target=f"{server.host}/acme/files-{len(options)}:v1", outdir=str(tmp_path / "back")
    )

    assert sorted(Path(file).name for file in files) == ["card.md", "model.gguf"]
    assert (tmp_path / "back" / "model.gguf").read_bytes() == WEIGHTS
    assert (tmp_path / "back" / "card.md").read_text() == "a model\n"


def test_types_and_annotations_are_kept(server: Server, tokens: dict[str, str]) -> None:
    push(server, tokens["all"], "acme/annotated:v1")

    manifest = client(server, tokens["pull"]).get_manifest(f"{server.host}/acme/annotated:v1")

    assert [layer["mediaType"] for layer in manifest["layers"]] == [GGUF_TYPE, "text/markdown"]
    assert manifest["layers"][1]["annotations"] == {"org.opencontainers.image.title": "card.md", "language": "en"}
    assert manifest["config"]["mediaType"] == CONFIG_TYPE
    assert manifest["config"]["annotations"] == {"kind": "test"}
    assert manifest["annotations"] == {"vendor": "acme", "license": "CC0 <&>"}


def test_a_folder_goes_as_an_archive(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "lora.bin").write_bytes(WEIGHTS[:1000])
    target = f"{server.host}/acme/folder:v1"

    client(server, tokens["all"]).push(target=target, files=["adapter"])
    client(server, tokens["pull"]).pull(target=target, outdir=str(tmp_path / "back"))

    assert (tmp_path / "back" / "adapter" / "lora.bin").read_bytes() == WEIGHTS[:1000]


def test_an_attached_artifact_is_a_referrer(server: Server, tokens: dict[str, str]) -> None:
    subject = push(server, tokens["all"], "acme/subject:v1")

    attached = push(server, tokens["all"], "acme/subject:evaluation", subject=Subject(**subject))

    path = f"/v2/acme/subject/referrers/{subject['digest']}"
    (entry,) = Client(server.host, tokens["pull"]).request("GET", path).json["manifests"]
    assert entry["digest"] == attached["digest"]
    assert entry["artifactType"] == CONFIG_TYPE
    assert entry["annotations"]["vendor"] == "acme"


def test_tags_are_listed_and_deleted(server: Server, tokens: dict[str, str]) -> None:
    for tag in ("v2", "v10", "latest"):
        push(server, tokens["all"], f"acme/tags:{tag}", quiet=True)
    target = f"{server.host}/acme/tags"

    assert client(server, tokens["pull"]).get_tags(target) == ["latest", "v10", "v2"]
    assert client(server, tokens["pull"]).get_tags(target, N=2) == ["latest", "v10"]


def test_a_deleted_tag_takes_its_manifest_along(server: Server, tokens: dict[str, str]) -> None:
    push(server, tokens["all"], "acme/deleted:v1")
    target = f"{server.host}/acme/deleted"

    assert client(server, tokens["all"], "basic").delete_tags(target, "v1") == ["v1"]

    assert client(server, tokens["pull"]).get_tags(target) == []
    with pytest.raises(ValueError, match=r"(?i)not found"):
        client(server, tokens["pull"]).get_manifest(f"{target}:v1")


def test_what_is_public_needs_no_login(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    push(server, tokens["all"], "open/files:v1")

    client(server).pull(target=f"{server.host}/open/files:v1", outdir=str(tmp_path / "back"))

    assert (tmp_path / "back" / "model.gguf").read_bytes() == WEIGHTS


@pytest.mark.parametrize("secret", ["", "wrong", f"tng_{'A' * 43}"], ids=["none", "no token", "an unknown token"])
def test_wrong_credentials_read_nothing(server: Server, tokens: dict[str, str], secret: str) -> None:
    push(server, tokens["all"], "acme/secret:v1")

    with pytest.raises(ValueError, match=r"(?i)unauthorized|Cannot respond to request for authentication"):
        client(server, secret).get_manifest(f"{server.host}/acme/secret:v1")


def test_a_reader_writes_nothing(server: Server, tokens: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"session url|Unauthorized|Forbidden") as refused:
        push(server, tokens["pull"], "acme/refused:v1")

    assert "token reader does not allow pushing to this repository" in str(refused.value)


def test_weights_that_were_pushed_are_a_model_that_runs(
    server: Server, tokens: dict[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf.read_bytes())
    (tmp_path / "README.md").write_text("a model\n" * 1000)

    client(server, tokens["all"]).push(target=f"{server.host}/acme/tiny:v1", files=["README.md", "tiny.gguf"])

    api = Client(server.host, server.admin_token)
    names = [model["name"] for model in api.request("GET", "/api/tags").json["models"]]
    assert "acme/tiny:v1" in names
    options = {"num_predict": 4, "num_ctx": 512, "temperature": 0}
    body = {"model": "acme/tiny:v1", "prompt": "hello", "stream": False, "options": options}
    answer = api.post_json("/api/generate", body).json
    assert (answer["done"], answer["eval_count"]) == (True, 4)
