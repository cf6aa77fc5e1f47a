"""The official Python client, ollama 0.6.3 of PyPI: models listed, made and sent, by `Client` and `AsyncClient`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.registry.official_ollama.clients import OfficialClient, refusal
from tests.registry.ollama_api.world import Api, user
from tests.tiny_gguf import write_tiny_gguf


def test_what_is_stored_is_listed_and_shown(client: OfficialClient) -> None:
    listed = {model.model: model for model in client.list().models}
    shown = client.show("ns/alias:v1")

    found = listed["ns/alias:v1"]
    assert (len(found.digest), found.details.format, found.details.family) == (64, "gguf", "llama")
    assert found.size > 10_000
    assert (datetime.now(UTC) - found.modified_at).total_seconds() < 3600
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.capabilities == ["completion"]
    assert shown.template.endswith("[next]")
    assert "num_predict" in shown.parameters
    assert "SYSTEM You are S." in shown.modelfile
    assert client.show("tiny").license == "MIT"


def test_what_is_loaded_is_listed_until_it_is_told_to_go(client: OfficialClient) -> None:
    client.generate("other", keep_alive="1h")
    (loaded,) = (model for model in client.ps().models if model.name == "other:latest")
    client.chat("other", keep_alive=0)

    assert loaded.context_length == 2048
    assert loaded.size > 0
    assert 3500 < (loaded.expires_at - datetime.now(UTC)).total_seconds() < 3700
    assert "other:latest" not in [model.name for model in client.ps().models]


def test_a_model_is_derived_copied_and_deleted(client: OfficialClient) -> None:
    made = client.create(
        "derived", from_="tiny", system="You are D.", template="{{ .System }}{{ .Prompt }}", license=["A", "B"],
        parameters={"num_predict": 3, "stop": ["x"]}, messages=user("stored"),
    )  # fmt: skip
    copied = client.copy("derived", "ns/copied:v2")
    shown, answer = client.show("ns/copied:v2"), client.generate("ns/copied:v2", "hello")
    deleted = [client.delete(name) for name in ("derived", "ns/copied:v2")]

    assert [made.status, copied.status, *(each.status for each in deleted)] == ["success"] * 4
    assert shown.license == "MIT\nA\nB"
    assert "MESSAGE user stored" in shown.modelfile
    assert shown.details.parent_model == "tiny:latest"
    assert answer.eval_count <= 3
    assert refusal(client, "show", model="ns/copied:v2") == (404, "model 'ns/copied:v2' not found")


def test_a_model_is_made_of_an_uploaded_file(client: OfficialClient, tmp_path: Path) -> None:
    weights = write_tiny_gguf(tmp_path / "float.gguf", is_float=True)
    digests = {client.create_blob(weights), client.create_blob(str(weights))}  # the second time it is there already
    files = {"w.gguf": digests.pop()}

    lines = [line.status for line in client.create("made", quantize="q8_0", files=files, stream=True)]

    assert not digests
    assert (lines[0], lines[-1]) == ("parsing GGUF", "success")
    assert any(line.startswith("quantizing F32 model to Q8_0") for line in lines)
    assert client.show("made").details.quantization_level == "Q8_0"
    assert client.chat("made", user(), options={"num_predict": 64, "temperature": 0}).eval_count == 64
    assert client.delete("made").status == "success"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_model_goes_to_another_server_and_comes_back(
    client: OfficialClient, near: Api, far: Api, away: str, streams: bool
) -> None:
    client.copy("tiny", away)
    pushed = client.push(away, insecure=True, stream=streams)
    client.delete(away)
    pulled = client.pull(away, insecure=True, stream=streams)

    there, here = (digests(api) for api in (far, near))
    assert here[away] == here["tiny:latest"] == there[away.partition("/")[2]]
    assert client.delete(away).status == "success"
    if not streams:
        assert [pushed.status, pulled.status] == ["success"] * 2
        return
    for first, lines in ("retrieving manifest", pushed), ("pulling manifest", pulled):
        assert [lines[0].status, lines[-1].status] == [first, "success"]
        assert any(line.completed == line.total > 10_000 for line in lines if line.total)
        assert all(line.digest.startswith("sha256:") for line in lines if line.total)


def digests(api: Api) -> dict[str, str]:
    """By name, the manifests that a server has."""
    return {model["name"]: model["digest"] for model in api.client.request("GET", "/api/tags").json["models"]}
