"""What holds for every route of the OpenAI dialect. Source: the Ollama API, "Common /v1 rules" and "Error shapes"."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import zstandard
from flask.testing import FlaskClient

from runtime.api.v1_body import MAX_UNPACKED_BYTES
from runtime.errors import LoadFailed, QueueFull, RuntimeFailure, SupervisorGone
from runtime.supervisor.client import Supervisor
from tests.openai_app import CHAT, COMPLETIONS, GREEDY, JSON, RESPONSES, error, post, user, whole

EMBEDDINGS = "/v1/embeddings"
ROUTES: dict[str, JSON] = {
    CHAT: {"messages": user()},
    COMPLETIONS: {"prompt": "hello"},
    RESPONSES: {"input": "hello"},
    EMBEDDINGS: {"input": "hello"},
}
BUSY = "server busy, please try again.  maximum pending requests exceeded"
TOO_LARGE = f"the request body is larger than {MAX_UNPACKED_BYTES} bytes when it is decompressed"
EFFORT = (
    'invalid reasoning value: "hard" (must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none")'
)


def send_zstd(client: FlaskClient, path: str, packed: bytes) -> tuple[int, JSON]:
    answer = client.post(path, data=packed, headers={"Content-Encoding": "zstd"})
    return answer.status_code, answer.json or {}


@pytest.mark.parametrize("path", [*ROUTES, "/v1/rerank"])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "EOF"),
        (b" \n", "EOF"),
        (b"{", "the request body is not valid JSON"),
        (b"[]", "the request body must be a JSON object"),
    ],
)
def test_a_body_that_is_none_is_refused(ollama: FlaskClient, path: str, raw: bytes, message: str) -> None:
    refused = ollama.post(path, data=raw)

    assert (refused.status_code, refused.json) == error(400, message)
    assert refused.content_type == "application/json"


@pytest.mark.parametrize("path", ROUTES)
def test_trap_85_a_zstd_body_is_unpacked(ollama: FlaskClient, path: str) -> None:
    model = "bert" if path == EMBEDDINGS else "tiny"
    raw = json.dumps({"model": model, **ROUTES[path], "max_tokens": 1, "max_output_tokens": 1}).encode()
    compressor = zstandard.ZstdCompressor()

    in_frames = compressor.compress(raw[:10]) + compressor.compress(raw[10:])
    streamed = zstandard.ZstdCompressor().compressobj()  # its frames do not say how large they are

    assert send_zstd(ollama, path, in_frames)[0] == 200
    assert send_zstd(ollama, path, streamed.compress(raw) + streamed.flush())[1]["model"] == model


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zstandard.ZstdCompressor().compress(b" " * (MAX_UNPACKED_BYTES + 1)), TOO_LARGE),
        (zstandard.ZstdCompressor().compress(b" " * MAX_UNPACKED_BYTES), "EOF"),
        (b"{}", "the request body is not valid zstd"),
        (zstandard.ZstdCompressor().compress(b"{}")[:-1], "the request body is not valid JSON"),
        (zstandard.ZstdCompressor().compress(b""), "EOF"),
    ],
    ids=["too large", "as large as may be", "no zstd", "cut off", "empty"],
)
def test_trap_85_what_a_zstd_body_unpacks_to_is_bounded(ollama: FlaskClient, packed: bytes, message: str) -> None:
    assert send_zstd(ollama, CHAT, packed) == error(400, message)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (QueueFull(BUSY, retry_after_s=7), 503, "7"),
        (SupervisorGone("gone"), 503, "1"),
        (LoadFailed("no"), 500, None),
    ],
)
def test_trap_66_who_is_refused_for_now_is_told_when_to_return(
    ollama: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    failure: RuntimeFailure,
    status: int,
    retry_after: str | None,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Supervisor, "lease", refuse)
    refused = post(ollama, path, model="tiny", **ROUTES[path], stream=True)

    assert (refused.status_code, refused.json) == error(status, str(failure))
    assert refused.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_trap_32_a_runner_that_dies_ends_the_stream_with_an_error(
    ollama: FlaskClient, ollama_run_dir: Path, path: str
) -> None:
    asked = {"model": "tiny", **ROUTES[path], "max_tokens": 20_000, "max_output_tokens": 20_000, "stream": True}
    answer = ollama.post(path, data=json.dumps(asked), buffered=False)
    stream = answer.iter_encoded()
    next(stream)
    (loaded,) = [model for model in Supervisor(ollama_run_dir).ps() if model.name == "tiny:latest"]
    os.kill(loaded.pid, signal.SIGKILL)

    *_, last = stream
    answer.close()

    assert answer.status_code == 200
    told = json.loads(last.removeprefix(b"data: "))
    assert set(told) == {"error"}
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert told["error"]["type"] == "api_error"
    assert last.endswith(b"}\n\n")
    assert whole(ollama, model="tiny", messages=user(), **GREEDY)["choices"]


def test_trap_86_a_query_changes_nothing(ollama: FlaskClient) -> None:
    assert post(ollama, f"{CHAT}?beta=true", model="tiny", messages=user(), max_tokens=1).status_code == 200


REFUSALS: list[tuple[JSON, int, str]] = [
    ({"model": ""}, 400, "model is required"),
    ({"model": None}, 400, "model is required"),
    ({"model": 5}, 400, 'field "model" must be of type string'),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"model": "a//b"}, 400, "invalid model name"),
    ({"model": "tiny:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ({"model": "bert"}, 400, '"bert" does not support chat'),
    ({"model": "image"}, 400, "the manifest names no GGUF weights"),
    ({"stream": "yes"}, 400, 'field "stream" must be of type boolean'),
    ({"stream_options": True}, 400, 'field "stream_options" must be of type object'),
    ({"temperature": "hot"}, 400, 'field "temperature" must be of type number'),
    ({"top_p": True}, 400, 'field "top_p" must be of type number'),
    ({"seed": 1.5}, 400, 'field "seed" must be of type integer'),
    ({"max_tokens": "5"}, 400, 'field "max_tokens" must be of type integer'),
    ({"n": 2}, 400, "n must be 1: this server gives one answer a request, and not 2"),
    ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400,
     "registry.ollama.ai/library/tiny:latest does not support tools"),
    ({"tool_choice": "sometimes"}, 400, 'tool_choice must be "auto", "none", "required", or name a function'),
    ({"tool_choice": "required"}, 400, "tool_choice names no tool of the request"),
    ({"reasoning_effort": "hard"}, 400, EFFORT),
    ({"reasoning": {"effort": "hard"}}, 400, EFFORT),
    ({"reasoning_effort": "high"}, 400, '"tiny" does not support thinking'),
    ({"response_format": {"type": "json_schema"}}, 400, 'a format of type "json_schema" needs a "schema"'),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}, 400,
     'field "schema" must be of type object'),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": True}}}}, 400,
     'invalid format: the JSON Schema keyword "uniqueItems" is not supported'),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_refusals_have_the_status_and_the_shape_of_the_dialect(
    ollama: FlaskClient, body: JSON, status: int, message: str, stream: bool
) -> None:
    refused = post(ollama, CHAT, **{"model": "tiny", "messages": user(), "stream": stream} | body)

    assert (refused.status_code, refused.json) == error(status, message)
    assert refused.content_type == "application/json"
