"""POST /api/create with a Modelfile, as clients up to 0.5.4 send it."""

from __future__ import annotations

import json

import pytest

from tests.made_models import (
    SUCCESS,
    create,
    digest_of,
    gguf_bytes,
    layer,
    layers,
    names,
    refused,
    shards,
    show,
    upload,
    zipped,
)
from tests.tiny_projector import write_tiny_projector


def test_trap_80_a_modelfile_makes_a_model(client, tiny):
    lines = create(client, name="x", modelfile="FROM tiny\nSYSTEM hi")

    assert lines[-1] == SUCCESS
    assert show(client, "x")["system"] == "hi"


def test_an_uploaded_file_is_named_by_its_digest(client, weights):
    create(client, name="x", modelfile=f"FROM @{upload(client, weights)}")

    assert layer(client, "library/x", "model") == weights


def test_every_command_has_its_layer(client, tiny):
    text = '\n'.join([
        "FROM tiny", "TEMPLATE <{{ .Prompt }}>", 'SYSTEM """two', 'lines"""', "PARAMETER temperature 0.5",
        "PARAMETER stop a", "PARAMETER stop b", "LICENSE A", "LICENSE B", "MESSAGE user hi", "MESSAGE assistant ho",
        "PARSER cogito", "REQUIRES v0.5.0",
    ])  # fmt: skip

    create(client, name="x", modelfile=text)

    shown = show(client, "x")
    assert (shown["template"], shown["system"], shown["license"]) == ("<{{ .Prompt }}>", "two\nlines", "A\nB")
    assert layer(client, "library/x", "params") == b'{"stop":["a","b"],"temperature":0.5}\n'
    assert [message["content"] for message in shown["messages"]] == ["hi", "ho"]
    assert shown["requires"] == "0.5.0"


def test_weights_and_projector_are_two_lines(client, weights, tmp_path):
    projector = write_tiny_projector(tmp_path / "mm.gguf").read_bytes()

    create(client, name="x", modelfile=f"FROM @{upload(client, weights)}\nFROM @{upload(client, projector)}")

    assert layer(client, "library/x", "projector") == projector


def test_a_projector_joins_a_stored_model(client, tiny, tmp_path):
    projector = write_tiny_projector(tmp_path / "mm.gguf").read_bytes()

    create(client, name="x", modelfile=f"FROM tiny\nFROM @{upload(client, projector)}")

    shown = show(client, "x")
    assert shown["details"]["families"] == ["llama", "clip"]
    assert "vision" in shown["capabilities"]


def test_parts_are_put_in_their_order(client):
    parts = shards(3)
    text = "\n".join(f"FROM @{upload(client, part)}" for part in reversed(parts))

    create(client, name="x", modelfile=text)

    assert [each["digest"] for each in layers(client, "library/x", "model")] == [digest_of(part) for part in parts]


def test_an_adapter_is_named_by_its_digest(client, tiny):
    lora = gguf_bytes("llama", general__type="adapter")

    create(client, name="x", modelfile=f"FROM tiny\nADAPTER @{upload(client, lora)}")

    assert layer(client, "library/x", "adapter") == lora


def test_deprecated_parameters_are_warned_of_and_dropped(client, tiny):
    lines = create(client, name="x", modelfile="FROM tiny\nPARAMETER mirostat 1\nPARAMETER numa true\nPARAMETER seed 3")

    assert lines[0] == {"status": "warning: parameter mirostat is deprecated"}
    assert sum("warning" in line["status"] for line in lines) == 1
    assert json.loads(layer(client, "library/x", "params")) == {"seed": 3}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"modelfile": ""}, 400, "path or Modelfile are required"),
        ({"path": ""}, 400, "path or Modelfile are required"),
        ({"modelfile": "", "path": ""}, 400, "path or Modelfile are required"),
        ({"path": "/etc/passwd"}, 400, "a Modelfile on the server's own disk is not read: send its text"),
        ({"modelfile": "SYSTEM x"}, 400, "no FROM line"),
        ({"modelfile": "FROM tiny\nNONSENSE x"}, 400, "(line 2): command must be one of"),
        ({"modelfile": "FROM tiny\nPARAMETER what 1"}, 400, "unknown parameter 'what'"),
        ({"modelfile": "FROM ./tiny.gguf"}, 400, "invalid model reference: ./tiny.gguf"),
        ({"modelfile": "FROM /etc/passwd"}, 400, "invalid model reference: /etc/passwd"),
        ({"modelfile": "FROM ../../x"}, 400, "invalid model reference: ../../x"),
        ({"modelfile": "FROM tiny\nADAPTER ./lora"}, 400, "invalid model reference: ./lora"),
        ({"modelfile": "FROM tiny\nDRAFT ./draft"}, 400, "invalid model reference: ./draft"),
        ({"modelfile": "FROM @sha256:12"}, 400, "invalid digest format"),
        ({"modelfile": f"FROM @{digest_of(b'absent')}"}, 400, f'blob "{digest_of(b"absent")}" not found'),
        ({"modelfile": "FROM tiny\nFROM tiny"}, 400, "a model begins as one stored model at most"),
        ({"name": "a b", "modelfile": "FROM tiny"}, 400, "invalid model name"),
        ({"modelfile": "x" * (9 * 2**20)}, 400, ""),
    ],
)  # fmt: skip
def test_what_a_modelfile_cannot_say(settled, body, status, message):
    found = refused(settled, **({"name": "x"} | body))

    assert found[0] == status
    assert found[1].startswith(message)
    assert names(settled) == ["tiny:latest"]


def test_a_request_of_the_current_form_is_never_told_of_modelfiles(settled):
    assert refused(settled, model="x") == (400, "neither 'from' or 'files' was specified")


def test_the_current_form_counts_where_a_request_speaks_both(client, tiny):
    create(client, model="x", **{"from": "tiny"}, system="current", modelfile="FROM absent\nSYSTEM legacy")

    assert show(client, "x")["system"] == "current"


def test_an_archive_is_told_what_to_do(settled):
    status, message = refused(settled, name="x", modelfile=f"FROM @{upload(settled, zipped())}")

    assert status == 400
    assert "convert the model to GGUF first" in message


def test_two_sets_of_weights_are_refused(settled):
    other = upload(settled, gguf_bytes("llama", tensors=True))

    status, message = refused(settled, name="x", modelfile=f"FROM tiny\nFROM @{other}", stream=False)

    assert (status, message) == (400, "a model has one set of weights: name a stored model or a file, not both")
