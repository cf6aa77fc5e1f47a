"""What is refused, in which words. Source: the Ollama API, "Status codes and literal messages"."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.ollama_app import JSON, TOOL, post

CHAT: JSON = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
GENERATE: JSON = {"model": "tiny", "prompt": "x"}
RAW_CONFLICT = "raw mode does not support template, system, or context"
UNSAFE = "template error: the template reaches for something it may not use"
FORMAT_ENDS = 'expected "json" or a valid JSON Schema object'
TOO_LONG = "the input length exceeds the context length"
NO_FIELD = "template error: line 1: can't evaluate field X in type string"
LOOPS = "template error: line 1: the template loops more than 1000000 times"
EXACTLY = "is beyond what can be held to exactly"
STOPS = 'option "stop" takes up to 256 texts of 1024 characters'
UNIQUE = 'invalid format: the JSON Schema keyword "uniqueItems" is not supported'
REMOTE = 'invalid format: "$ref" to "http://h/s": only "#" and "#/…" are followed'
NOTHING = "invalid format: Unsatisfiable schema: minimum (2) is greater than maximum (1)"

REFUSALS = [
    ("generate", {}, 404, "model '' not found"),
    ("generate", {"name": "tiny"}, 404, "model '' not found"),
    ("generate", {"model": "nope"}, 404, "model 'nope' not found"),
    ("generate", {"model": "tiny:nope", "keep_alive": 0}, 404, "model 'tiny:nope' not found"),
    ("generate", {"model": "a//b"}, 400, "invalid model name"),
    ("generate", {"model": "tiny:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ("generate", {"model": "bert", "prompt": "x"}, 400, '"bert" does not support generate'),
    ("generate", {"model": "bert"}, 400, '"bert" does not support generate'),
    ("generate", GENERATE | {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ("generate", {"model": "nope", "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    ("generate", GENERATE | {"raw": True, "system": "s"}, 400, RAW_CONFLICT),
    ("generate", GENERATE | {"raw": True, "context": [1]}, 400, RAW_CONFLICT),
    ("generate", GENERATE | {"think": True}, 400, '"tiny" does not support thinking'),
    ("generate", GENERATE | {"suffix": "s"}, 400, "registry.ollama.ai/library/tiny:latest does not support insert"),
    ("generate", GENERATE | {"template": "a\n{{ .Prompt"}, 500, "template error: line 2: unclosed action"),
    ("generate", GENERATE | {"template": "{{ .Prompt.X }}"}, 500, NO_FIELD),
    ("generate", GENERATE | {"template": "{{ range 9999999 }}{{ end }}"}, 500, LOOPS),
    ("generate", GENERATE | {"images": ["AAAA"]}, 400, '"tiny" does not support images'),
    ("generate", GENERATE | {"images": ["data:image/png;base64,AAAA"]}, 400, "illegal base64 data in an image"),
    ("generate", GENERATE | {"images": [1]}, 400, 'field "images" must be an array of strings'),
    ("generate", GENERATE | {"keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
    ("generate", GENERATE | {"options": {"num_predict": "4"}}, 500, 'option "num_predict" must be of type integer'),
    ("generate", GENERATE | {"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
    ("generate", {"model": "typo", "prompt": "x"}, 500, 'option "stop" must be of type array'),
    ("generate", {"model": "hostile", "prompt": "x"}, 500, UNSAFE),
    ("generate", {"model": "image", "prompt": "x"}, 400, "the manifest names no GGUF weights"),
    ("chat", {}, 400, "model is required"),
    ("chat", {"model": " "}, 400, "model is required"),
    ("chat", CHAT | {"model": "nope"}, 404, "model 'nope' not found"),
    ("chat", CHAT | {"model": "bert"}, 400, '"bert" does not support chat'),
    ("chat", CHAT | {"tools": [TOOL]}, 400, "registry.ollama.ai/library/tiny:latest does not support tools"),
    ("chat", CHAT | {"think": "low"}, 400, '"tiny" does not support thinking'),
    ("chat", CHAT | {"format": {"uniqueItems": True}}, 400, UNIQUE),
    ("chat", CHAT | {"format": {"enum": [10**400]}}, 400, f'invalid format: "enum": {"1" + 39 * "0"} {EXACTLY}'),
    ("chat", CHAT | {"options": {"stop": ["x"] * 257}}, 400, STOPS),
    ("chat", CHAT | {"options": {"stop": ["x" * 1025]}}, 400, STOPS),
    ("chat", CHAT | {"format": {"$ref": "http://h/s"}}, 400, REMOTE),
    ("chat", CHAT | {"format": {"allOf": [{"const": 1}, {"const": 2}]}}, 400, NOTHING),
    ("chat", CHAT | {"format": "xml"}, 500, 'invalid format: "\\"xml\\""; ' + FORMAT_ENDS),
    ("chat", CHAT | {"format": []}, 500, 'invalid format: "[]"; ' + FORMAT_ENDS),
    ("embed", {"input": "x"}, 404, "model '' not found"),
    ("embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
    ("embed", {"model": "nope", "input": 1}, 400, "invalid input type"),
    ("embed", {"model": "bert", "input": ["x", 1]}, 400, "invalid input type"),
    ("embed", {"model": "bert", "input": "x " * 3000, "truncate": False}, 400, TOO_LONG),
    ("embeddings", {"prompt": "x"}, 400, "model is required"),
    ("embeddings", {"model": "nope", "prompt": "x"}, 404, 'model "nope" not found, try pulling it first'),
    ("show", {}, 400, "model is required"),
    ("show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
    ("show", {"model": "a//b"}, 400, "invalid model name"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("route", "body", "status", "message"),
    REFUSALS,
    ids=[f"{route} {message[:50]}" for route, _, _, message in REFUSALS],
)
def test_refusals_have_the_status_and_words_of_the_dialect(
    ollama: FlaskClient, route: str, body: JSON, status: int, message: str
) -> None:
    refused = post(ollama, f"/api/{route}", **body)

    assert (refused.status_code, refused.json) == (status, {"error": message})
    assert refused.content_type == "application/json; charset=utf-8"


@pytest.mark.parametrize("route", ["generate", "chat", "embed", "embeddings", "show"])
def test_a_request_without_a_body_is_refused(ollama: FlaskClient, route: str) -> None:
    assert ollama.post(f"/api/{route}").json == {"error": "missing request body"}
