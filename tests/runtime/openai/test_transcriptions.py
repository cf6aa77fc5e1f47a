"""POST /v1/audio/transcriptions: no model listens here. Source: the Ollama API, "POST /v1/audio/transcriptions"."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask.testing import FlaskClient

from storage.store import Store
from tests.openai_app import error
from tests.stored_models import push_model
from tests.tiny_gguf import write_tiny_gguf

PATH = "/v1/audio/transcriptions"


def sound(data: bytes = b"RIFF\0\0\0\0WAVEfmt ") -> dict[str, Any]:
    return {"file": (io.BytesIO(data), "x.wav")}


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": " "} | sound(), 400, "model is required"),
        ({"model": "tiny"}, 400, "file is required: no such file"),
        ({"model": "tiny", "file": "text"}, 400, "file is required: no such file"),
        ({"model": "tiny"} | sound(b""), 400, "audio file is empty"),
        ({"model": "nope"} | sound(), 404, "model 'nope' not found"),
        ({"model": "tiny"} | sound(), 400, '"tiny" does not support audio'),
        ({"model": "listener"} | sound(), 501, "audio is not supported by this server yet"),
    ],
)
def test_a_recording_is_refused_for_the_first_reason(
    ollama: FlaskClient,
    ollama_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
    fields: dict[str, Any],
    status: int,
    message: str,
) -> None:
    if fields.get("model") == "listener":
        weights = write_tiny_gguf(tmp_path_factory.mktemp("listener") / "listener.gguf")
        push_model(ollama_store, "listener", weights, config={"capabilities": ["completion", "audio"]})

    refused = ollama.post(PATH, data=fields, content_type="multipart/form-data")

    assert (refused.status_code, refused.json) == error(status, message)


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "multipart/form-data", "application/json"])
def test_a_body_that_is_no_form_is_refused(ollama: FlaskClient, content_type: str) -> None:
    refused = ollama.post(PATH, data=b'--y\r\n{"model":"tiny"}', content_type=content_type)

    assert refused.status_code == 400
    assert refused.json["error"]["type"] == "invalid_request_error"
