"""Models that other tools pushed: listed, described and run like any other; what cannot run says why."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.foreign_models import (
    CHAT,
    DOCKER,
    FILEPATH,
    KITOPS,
    MODELPACK,
    OCI_MANIFEST,
    Artifact,
    File,
    docker_model,
    modelkit,
    modelpack,
    oras_files,
    oras_folder,
    packed,
    push_index,
    ramalama_artifact,
    ramalama_image,
)
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import write_tiny_projector

GREEDY = {"temperature": 0, "num_predict": 8, "num_ctx": 512}
Make = Callable[[bytes], Artifact]


@pytest.fixture(scope="module")
def weights(tiny_gguf: Path) -> bytes:
    return tiny_gguf.read_bytes()


@pytest.fixture(scope="module")
def said(admin: Client, tiny_model: str) -> str:
    """What the same weights say when they were pushed as Ollama does."""
    return generated(admin, tiny_model)


def generated(client: Client, name: str) -> str:
    answer = client.post_json("/api/generate", {"model": name, "prompt": "hello", "stream": False, "options": GREEDY})
    assert answer.status == 200, answer.body
    return str(answer.json["response"])


def listed(client: Client, name: str) -> dict[str, Any] | None:
    models: list[dict[str, Any]] = client.request("GET", "/api/tags").json["models"]
    return next((model for model in models if model["name"] == name), None)


def shown(client: Client, name: str) -> dict[str, Any]:
    answer = client.post_json("/api/show", {"model": name})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def readme(media_type: str = "text/markdown") -> File:
    return File(media_type, b"# a model\n" * 10)


TOOLS: dict[str, Make] = {
    "docker": lambda data: docker_model(File(f"{DOCKER}gguf.v3", data)),
    "docker, a folder": lambda data: docker_model(
        File(f"{DOCKER}model.file", b"{}", {FILEPATH: "config.json"}),
        File(f"{DOCKER}gguf.v3", data, {FILEPATH: "tiny.gguf"}),
        version="0.2",
    ),
    "modelpack, raw": lambda data: modelpack(
        File(f"{MODELPACK}doc.v1.raw", b"# a model", {FILEPATH: "README.md"}),
        File(f"{MODELPACK}weight.v1.raw", data, {FILEPATH: "tiny.gguf"}),
    ),
    "modelpack, raw without a name": lambda data: modelpack(File(f"{MODELPACK}weight.v1.raw", data)),
    "modelpack, gguf": lambda data: modelpack(File(f"{MODELPACK}weight.v1.gguf", data)),
    "modelpack, tar": lambda data: modelpack(File(f"{MODELPACK}weight.v1.tar", packed({"tiny.gguf": data}))),
    "kitops": lambda data: modelkit(
        File(f"{KITOPS}model.v1.tar", packed({"model.gguf": data})),
        File(f"{KITOPS}docs.v1.tar", packed({"README.md": b"# a model"})),
    ),
    "kitops, newer": lambda data: modelkit(
        File(f"{KITOPS}model.v1.raw", data), members={"artifactType": f"{KITOPS}manifest.v1+json"}
    ),
    "ramalama, artifact": ramalama_artifact,
    "ramalama, raw image": ramalama_image,
    "ramalama, car image": lambda data: ramalama_image(data, kind="car"),
    "oras": lambda data: oras_files(("tiny.gguf", data)),
    "oras, with a card": lambda data: oras_files(("README.md", b"# a model" * 100), ("tiny.gguf", data)),
    "oras, no name that tells": lambda data: oras_files(("weights.bin", data)),
    "oras, a folder": oras_folder,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_pushed_is_listed_shown_and_run(admin: Client, weights: bytes, said: str, tool: str) -> None:
    name = f"foreign/{tool.replace(', ', '-').replace(' ', '-')}"
    TOOLS[tool](weights).push(admin, name, "v1")

    entry = listed(admin, f"{name}:v1")

    assert entry is not None
    assert entry["capabilities"] == ["completion"]
    assert entry["details"]["family"] == "llama"
    assert entry["details"]["context_length"] == 2048
    assert "reason" not in entry
    found = shown(admin, f"{name}:v1")
    assert found["model_info"]["general.architecture"] == "llama"
    assert len(found["tensors"]) == 21
    assert generated(admin, f"{name}:v1") == said


@pytest.mark.parametrize(
    ("tool", "size", "level"),
    [("docker", "361.82M", "Q8_0"), ("modelpack, raw", "8B", "Q5_1"), ("kitops", "110K", "Q4_1")],
)
def test_details_are_the_config_documents_where_it_states_them(
    admin: Client, weights: bytes, tool: str, size: str, level: str
) -> None:
    TOOLS[tool](weights).push(admin, "foreign/details", "v1")

    details = shown(admin, "foreign/details:v1")["details"]

    assert (details["format"], details["parameter_size"], details["quantization_level"]) == ("gguf", size, level)


def test_a_length_that_the_config_states_is_shown(admin: Client, weights: bytes) -> None:
    docker_model(File(f"{DOCKER}gguf.v3", weights), context_size=1024).push(admin, "foreign/length", "v1")

    entry = listed(admin, "foreign/length:v1")

    assert entry is not None
    assert entry["details"]["context_length"] == 1024


def test_dockers_extras_find_their_places(admin: Client, weights: bytes, tmp_path: Path) -> None:
    projector = write_tiny_projector(tmp_path / "projector.gguf").read_bytes()
    docker_model(
        File(f"{DOCKER}gguf.v3", weights),
        File(f"{DOCKER}mmproj", projector),
        File(f"{DOCKER}chat.template.jinja", CHAT.encode()),
        File(f"{DOCKER}license", b"be kind"),
    ).push(admin, "foreign/extras", "v1")

    found = shown(admin, "foreign/extras:v1")

    assert found["license"] == "be kind"
    assert found["template"] == CHAT
    assert "vision" in found["capabilities"]
    assert found["projector_info"]["general.architecture"] == "clip"
    body = {"model": "foreign/extras:v1", "messages": [{"role": "user", "content": "X"}], "_debug_render_only": True}
    rendered = admin.post_json("/api/chat", body).json["_debug_info"]["rendered_template"]
    assert rendered == "<|im_start|>X"


@pytest.mark.parametrize(
    ("tool", "license_text"), [("kitops", "MIT"), ("modelpack, raw", "Apache-2.0"), ("docker", None)]
)
def test_a_licence_that_is_only_named_is_shown(
    admin: Client, weights: bytes, tool: str, license_text: str | None
) -> None:
    TOOLS[tool](weights).push(admin, "foreign/licence", "v1")

    assert shown(admin, "foreign/licence:v1").get("license") == license_text


def test_a_licence_among_the_files_is_shown(admin: Client, weights: bytes) -> None:
    oras_files(("docs/LICENSE.md", b"be kind"), ("tiny.gguf", weights)).push(admin, "foreign/licensed", "v1")

    assert shown(admin, "foreign/licensed:v1")["license"] == "be kind"


def test_shards_of_other_tools_run(admin: Client, said: str, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "s.gguf", shard_tensors=8)
    files = sorted(tmp_path.glob("s-*.gguf"), reverse=True)
    oras_files(*((file.name, file.read_bytes()) for file in files)).push(admin, "foreign/shards", "v1")

    assert generated(admin, "foreign/shards:v1") == said
    assert len(shown(admin, "foreign/shards:v1")["tensors"]) == 21


def test_an_index_is_the_first_model_in_it(admin: Client, weights: bytes, said: str) -> None:
    name = "foreign/index"
    card = oras_files(("README.md", b"# no model"), media_type="text/markdown").push(admin, name)
    packed_with_gzip = modelpack(
        File(f"{MODELPACK}weight.v1.tar+gzip", gzip.compress(packed({"tiny.gguf": weights})))
    ).push(admin, name)
    plain = docker_model(File(f"{DOCKER}gguf.v3", weights)).push(admin, name)
    platform = {"platform": {"os": "linux", "architecture": "arm64"}}
    push_index(admin, name, "v1", [card, packed_with_gzip | platform, plain | platform])

    entry = listed(admin, f"{name}:v1")

    assert entry is not None
    assert (entry["details"]["parameter_size"], entry["size"] > len(weights)) == ("361.82M", True)
    assert shown(admin, f"{name}:v1")["details"]["parameter_size"] == "361.82M"
    assert generated(admin, f"{name}:v1") == said


def test_a_manifest_for_no_platform_is_preferred(admin: Client, weights: bytes) -> None:
    name = "foreign/preferred"
    first = docker_model(File(f"{DOCKER}gguf.v3", weights), parameters="1 M").push(admin, name)
    second = docker_model(File(f"{DOCKER}gguf.v3", weights), parameters="2 M").push(admin, name)
    push_index(admin, name, "v1", [first | {"platform": {"os": "linux", "architecture": "amd64"}}, second])

    assert shown(admin, f"{name}:v1")["details"]["parameter_size"] == "2M"


def test_an_index_of_indexes_is_followed_so_far(admin: Client, weights: bytes) -> None:
    name = "foreign/deep"
    inner = docker_model(File(f"{DOCKER}gguf.v3", weights)).push(admin, name)
    push_index(admin, name, "one", [inner])
    one = admin.request("GET", f"/v2/{name}/manifests/one")
    child = {"mediaType": one.headers["Content-Type"], "digest": one.headers["Docker-Content-Digest"]}
    push_index(admin, name, "two", [child | {"size": len(one.body)}])
    two = admin.request("GET", f"/v2/{name}/manifests/two")
    child = {"mediaType": two.headers["Content-Type"], "digest": two.headers["Docker-Content-Digest"]}
    push_index(admin, name, "three", [child | {"size": len(two.body)}])

    assert listed(admin, f"{name}:two") is not None
    assert listed(admin, f"{name}:three") is None


def safetensors(data: bytes) -> File:
    return File(f"{DOCKER}safetensors", data, {FILEPATH: "model.safetensors"})


UNFIT: dict[str, tuple[Make, str, str]] = {
    "docker-safetensors": (lambda data: docker_model(safetensors(data), format="safetensors"), "safetensors", "GGUF"),
    "modelpack-safetensors": (
        lambda data: modelpack(
            File(f"{MODELPACK}weight.v1.raw", data, {FILEPATH: "model.safetensors"}), format="safetensors"
        ),
        "safetensors",
        "they are safetensors",
    ),
    "modelpack-gzip": (
        lambda data: modelpack(File(f"{MODELPACK}weight.v1.tar+gzip", gzip.compress(packed({"tiny.gguf": data})))),
        "gguf",
        "in a gzip archive",
    ),
    "kitops-zstd": (
        lambda data: modelkit(File(f"{KITOPS}model.v1.tar+zstd", b"\x28\xb5\x2f\xfd" + data)),
        "gguf",
        "in a zstd archive",
    ),
    "ramalama-gzip": (lambda data: ramalama_image(data, compressed=True), "gguf", "in a gzip archive"),
    "kitops-onnx": (
        lambda data: Artifact(
            File(f"{KITOPS}config.v1+json", b'{"model":{"format":"onnx"}}'),
            [File(f"{KITOPS}model.v1.tar", packed({"model.onnx": data}))],
        ),
        "onnx",
        "they are onnx",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_cannot_run_is_listed_and_says_why(admin: Client, kind: str) -> None:
    make, form, words = UNFIT[kind]
    make(os.urandom(3000)).push(admin, f"foreign/{kind}", "v1")

    entry = listed(admin, f"foreign/{kind}:v1")

    assert entry is not None
    assert words in entry["reason"]
    assert "capabilities" not in entry
    found = shown(admin, f"foreign/{kind}:v1")
    assert (found["details"]["format"], found["model_info"], found["capabilities"]) == (form, {}, [])
    assert found["reason"] == entry["reason"]
    used = admin.post_json("/api/generate", {"model": f"foreign/{kind}:v1", "prompt": "x"})
    assert (used.status, used.json["error"]) == (400, entry["reason"])


NO_MODELS: dict[str, Artifact] = {
    "an-image": Artifact(
        File("application/vnd.oci.image.config.v1+json", b'{"architecture":"amd64","config":{"Labels":null}}'),
        [File("application/vnd.oci.image.layer.v1.tar", packed({"models/tiny.gguf": b"GGUF" + bytes(100)}))],
    ),
    "files": oras_files(("data.csv", b"1,2\n")),
    "a-chart": Artifact(File("application/vnd.cncf.helm.config.v1+json", b"{}"), [File("a/chart", b"x")]),
}


@pytest.mark.parametrize("kind", NO_MODELS)
def test_what_is_no_model_is_not_listed(admin: Client, kind: str) -> None:
    NO_MODELS[kind].push(admin, f"foreign/{kind}", "v1")

    assert listed(admin, f"foreign/{kind}:v1") is None
    for path in ("/api/show", "/api/generate"):
        refused = admin.post_json(path, {"model": f"foreign/{kind}:v1", "prompt": "x"})
        assert (refused.status, refused.json["error"]) == (400, "the manifest names no GGUF weights")


def test_a_missing_shard_is_told_where_it_is_shown(admin: Client, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "s.gguf", shard_tensors=8)
    first, *_ = sorted(tmp_path.glob("s-*.gguf"))
    oras_files((first.name, first.read_bytes())).push(admin, "foreign/incomplete", "v1")

    found = shown(admin, "foreign/incomplete:v1")

    assert "lack part 2 and 3 of 3" in found["reason"]
    assert found["details"]["family"] == "llama"
    used = admin.post_json("/api/chat", {"model": "foreign/incomplete:v1", "messages": [{"role": "user"}]})
    assert (used.status, used.json["error"]) == (400, found["reason"])


def test_what_was_pushed_is_served_as_it_was(admin: Client, weights: bytes) -> None:
    pushed = modelkit(File(f"{KITOPS}model.v1.raw", weights)).push(admin, "foreign/bytes", "v1")
    shown(admin, "foreign/bytes:v1")

    served = admin.request("GET", "/v2/foreign/bytes/manifests/v1", headers={"Accept": OCI_MANIFEST})

    assert served.headers["Docker-Content-Digest"] == pushed["digest"]
