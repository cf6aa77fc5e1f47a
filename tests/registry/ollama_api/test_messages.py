"""Every status and literal message of the Ollama API, produced: its table "Status codes and literal messages".

A full line, 503, is in `test_traps_lifecycle.py`, a runner that dies in `test_streams.py`.

What only the reference can say has no row. 499 is for nobody: it tells a client that has gone. "account unavailable"
is of an account service, and "bad remote" of models that run elsewhere; neither is here. "input after truncation
exceeds maximum context length" and "... cannot be truncated further" are of a runner that counts otherwise than its
server: here one tokenizer counts and reads. No option is of type string.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from tests.client import Answer
from tests.registry.ollama_api.world import OF_NOTHING, TOOL, Api, user

ABSENT = "sha256:" + "0" * 64
BOTH_SOURCES = 'use either :local or :cloud, not both: "tiny:cloud:local"'
NO_CLOUD = "ollama cloud is disabled: "
RAW = "raw mode does not support template, system, or context"
LEVELS = '"high", "medium", "low", "max", true, or false'
FORMAT = 'expected "json" or a valid JSON Schema object'
TRY = 'model "{}" not found, try pulling it first'
TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the "
    "context length in settings, or use a model with a longer context length"
)


class Row(NamedTuple):
    """What is sent, and what must come back. body: JSON, unless it is bytes."""

    request: str
    body: object
    status: int
    message: str


def asked(path: str, status: int, message: str, **body: object) -> Row:
    """A row of a route that takes a prompt, messages and input alike: it reads what it knows."""
    given = {"model": "tiny", "prompt": "x", "messages": user("x"), "input": "x"}
    return Row(f"POST /api/{path}", given | body, status, message)


ROUTES = ("POST generate", "POST chat", "POST embed", "POST embeddings", "POST show", "POST create", "POST copy",
          "DELETE delete", "POST pull", "POST push")  # fmt: skip
ROWS = [
    # bodies
    *(Row(route.replace(" ", " /api/"), body, 400, "missing request body") for route in ROUTES for body in (b"", b" ")),
    Row("POST /api/experimental/web_search", b"", 400, "missing request body"),
    # no name, or none that can be one
    *(Row(f"POST /api/{path}", {}, 400, "model is required") for path in ("chat", "embeddings", "show", "push")),
    *(Row(f"POST /api/{path}", {"model": " "}, 400, "model is required") for path in ("chat", "embeddings")),
    Row("DELETE /api/delete", {}, 400, "model is required"),
    Row("POST /api/generate", {}, 404, "model '' not found"),
    Row("POST /api/embed", {"input": "x"}, 404, "model '' not found"),
    *(asked(path, 400, "invalid model name", model="a//b") for path in
      ("generate", "chat", "embed", "embeddings", "show", "create", "pull")),
    Row("POST /api/create", {"from": "tiny"}, 400, "invalid model name"),
    Row("POST /api/create", {"model": "x", "from": "a//b"}, 400, "invalid model name"),
    Row("POST /api/pull", {}, 400, "invalid model name"),
    Row("DELETE /api/delete", {"model": "a//b"}, 400, 'name "a//b" is invalid'),
    Row("POST /api/copy", {"source": "a//b", "destination": "x"}, 400, 'source "a//b" is invalid'),
    Row("POST /api/copy", {"source": "", "destination": "x"}, 400, 'source "" is invalid'),
    Row("POST /api/copy", {"source": "tiny", "destination": "a//b"}, 400, 'destination "a//b" is invalid'),
    *(asked(path, 400, BOTH_SOURCES, model="tiny:cloud:local") for path in
      ("generate", "chat", "embed", "embeddings", "show", "create", "pull", "push")),
    Row("DELETE /api/delete", {"model": "tiny:cloud:local"}, 400, BOTH_SOURCES),
    Row("POST /api/copy", {"source": "tiny:cloud:local", "destination": "x"}, 400, BOTH_SOURCES),
    # nothing by that name
    *(asked(path, 404, "model 'Nope' not found", model="Nope") for path in ("generate", "chat")),
    Row("DELETE /api/delete", {"model": "Nope"}, 404, "model 'Nope' not found"),
    Row("POST /api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
    Row("GET /v1/models/nope", None, 404, "model 'nope:latest' not found"),
    *(asked(path, 404, TRY.format("nope"), model="nope") for path in ("embed", "embeddings")),
    *(asked(path, 404, TRY.format("gone"), model="gone") for path in ("generate", "chat")),
    Row("POST /api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
    # blobs
    Row(f"HEAD /api/blobs/{ABSENT}", None, 404, ""),  # f'blob "{ABSENT}" not found', but HEAD has no body
    Row("POST /api/blobs/sha256:00", b"x", 400, "invalid digest format"),
    Row("POST /api/create", {"model": "x", "files": {"a.gguf": ""}}, 400, "invalid digest format"),
    Row(f"POST /api/blobs/{ABSENT}", b"", 400, f'digest mismatch, expected "{ABSENT}", got "{OF_NOTHING}"'),
    # what the model cannot do
    asked("generate", 400, '"bert" does not support generate', model="bert"),
    asked("chat", 400, '"bert" does not support chat', model="bert"),
    asked("generate", 400, '"tiny" does not support thinking', think=True),
    asked("chat", 400, '"tiny" does not support thinking', think="low"),
    asked("chat", 400, "registry.ollama.ai/library/tiny:latest does not support tools", tools=[TOOL]),
    asked("generate", 400, "registry.ollama.ai/library/tiny:latest does not support insert", suffix="s"),
    asked("generate", 400, "image generation models are not currently supported", model="painter"),
    # what makes no sense
    *(asked(path, 400, "top_logprobs must be between 0 and 20", top_logprobs=top) for path in ("generate", "chat")
      for top in (-1, 21)),
    *(asked("generate", 400, RAW, raw=True, **also) for also in ({"system": "s"}, {"template": "t"}, {"context": [1]})),
    *(asked(path, 400, f'invalid think value: "extreme" (must be {LEVELS})', think="extreme") for path in
      ("generate", "chat")),
    *(asked(path, 400, f"think must be a boolean or string ({LEVELS})", think=1) for path in ("generate", "chat")),
    asked("generate", 400, 'time: invalid duration "soon"', keep_alive="soon"),
    asked("chat", 400, 'time: missing unit in duration "5"', keep_alive="5"),
    asked("embed", 400, "Unsupported type: 'bool'", keep_alive=True),
    asked("embed", 400, "invalid input type", input=5),
    asked("embed", 400, "invalid input type", input=["x", 5]),
    asked("embed", 400, "the input length exceeds the context length", model="bert", input="x " * 3000, truncate=False),
    asked("embed", 400, "embedding contains NaN or Inf values", model="nan"),
    # create
    Row("POST /api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
    Row("POST /api/create", {"model": "x", "files": {"/a.gguf": ABSENT}}, 400, "file path must be relative"),
    Row("POST /api/create", {"model": "x", "files": {"a/../b.gguf": ABSENT}}, 400, "file path must be relative"),
    Row("POST /api/create", {"model": "x", "files": {}}, 400, "no files provided to convert"),
    Row("POST /api/create", {"model": "x", "files": {"a.txt": OF_NOTHING}, "stream": False}, 400, "unknown type"),
    Row("POST /api/create", {"model": "x", "files": {"a.gguf": OF_NOTHING}, "stream": False}, 400,
        "supplied file was not in GGUF format"),
    *(Row("POST /api/create", {"model": "x", "from": "tiny", "info": info, "stream": False}, 400, f"info field {told}")
      for info, told in (({"model_family": 5}, '"model_family" must be a string'),
                         ({"context_length": "x"}, '"context_length" must be a number'),
                         ({"embedding_length": -1}, '"embedding_length" must be a non-negative integer'))),
    # the cloud: there is none, and it is off
    *(asked(path, 403, f"{NO_CLOUD}remote model is unavailable", model="tiny:cloud") for path in
      ("generate", "chat", "embed", "embeddings")),
    Row("POST /api/show", {"model": "tiny:cloud"}, 403, f"{NO_CLOUD}remote model details are unavailable"),
    Row("POST /api/experimental/web_search", {"query": "x"}, 403, f"{NO_CLOUD}web search is unavailable"),
    Row("POST /api/experimental/web_fetch", {"url": "x"}, 403, f"{NO_CLOUD}web fetch is unavailable"),
    # options, and what the runner says
    asked("generate", 500, 'option "num_ctx" must be of type integer', options={"num_ctx": "x"}),
    asked("chat", 500, 'option "use_mmap" must be of type boolean', options={"use_mmap": "x"}),
    asked("embed", 500, 'option "top_p" must be of type float32', options={"top_p": "x"}),
    asked("generate", 500, 'option "stop" must be of type array', options={"stop": "x"}),
    asked("generate", 500, 'option "stop" must be of type array', model="typo"),
    asked("generate", 500, 'option "stop" must be of an array of strings', options={"stop": [5]}),
    asked("chat", 500, f'invalid format: "\\"xml\\""; {FORMAT}', format="xml"),
    asked("generate", 500, f'invalid format: "[\\"json\\"]"; {FORMAT}', format=["json"]),
    asked("generate", 500, "template error: line 2: unclosed action", template="a\n{{ .Prompt"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def stored(api: Api) -> None:
    """The empty blob, uploaded."""
    assert api.client.request("POST", f"/api/blobs/{OF_NOTHING}", b"").status in (200, 201)


def send(api: Api, row: Row) -> Answer:
    method, path = row.request.split(" ", 1)
    body = row.body if isinstance(row.body, bytes | None) else json.dumps(row.body).encode()
    return api.client.request(method, path, body)


def message_of(answer: Answer) -> str:
    """What an error says; nothing else may stand in its object."""
    if not answer.body:
        return ""
    told: Any = answer.json["error"]
    if isinstance(told, str):
        assert set(answer.json) == {"error"}
        return told
    assert told.keys() == {"message", "type", "param", "code"}
    return str(told["message"])


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.request[:40]} {row.message[:60]} {row.status}" for row in ROWS])
def test_a_refusal_has_the_status_and_the_words_of_the_api(api: Api, row: Row) -> None:
    answer = send(api, row)

    assert (answer.status, message_of(answer)) == (row.status, row.message)
    assert answer.headers["Content-Type"].startswith("application/json") or not answer.body


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_a_prompt_that_must_not_be_cut_is_refused_with_the_counts(api: Api, path: str) -> None:
    """The words of the reference, and between them how much too long it is."""
    refused = api.post(path, model="tiny", prompt="x " * 900, messages=user("x " * 900), truncate=False)

    assert refused.status == 400
    begin, end = TOO_LONG.split(";", 1)
    assert refused.json["error"].startswith(begin)
    assert refused.json["error"].endswith(f";{end}")


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/nothing", 404, "404 page not found"),
        ("GET", "/v1/nothing", 404, "404 page not found"),
        ("GET", "/api/chat", 405, "405 method not allowed"),
        ("DELETE", "/api/tags", 405, "405 method not allowed"),
        ("PUT", "/api/delete", 405, "405 method not allowed"),
    ],
)
def test_what_is_not_routed_is_told_in_plain_text(api: Api, method: str, path: str, status: int, body: str) -> None:
    answer = api.client.request(method, path)

    assert (answer.status, answer.body.decode()) == (status, body)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/nothing"])
def test_a_strange_page_or_name_is_refused_without_a_word(api: Api, path: str, headers: dict[str, str]) -> None:
    answer = api.client.request("GET", path, headers=headers)

    assert (answer.status, answer.body) == (403, b"")


def test_nobody_is_asked_to_sign_in(api: Api) -> None:
    """Where the reference answers 401 to who has no account, a private server has a name for everybody: `ollama push`
    would stop before its first byte, and send people to a site that knows nothing of this server.
    """
    me, out = api.post("/api/me"), api.post("/api/signout")

    assert me.status == 200
    assert me.json["name"]
    assert (out.status, out.body) == (200, b"null")


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_a_template_that_cannot_be_read_is_a_500_with_its_line(api: Api, path: str) -> None:
    refused = api.post(path, model="broken", prompt="x", messages=user())

    assert refused.status == 500
    assert refused.json["error"].startswith("template error: line 2: ")


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed"])
def test_weights_that_cannot_be_loaded_are_one_line(api: Api, path: str) -> None:
    refused = api.post(path, model="fake", prompt="x", messages=user(), input="x")

    assert refused.status == 500
    assert set(refused.json) == {"error"}
    assert "\n" not in refused.json["error"]
    assert "GGUF" in refused.json["error"]
