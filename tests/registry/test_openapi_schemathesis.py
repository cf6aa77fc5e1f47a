"""The server held to its own description: requests that follow it, and requests that do not, for every operation.

What is asked of other registries is left out, and models that are asked say no more than a few tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from auth.policy import Right
from auth.rights import RIGHTS
from registry.openapi.document import document
from tests.client import Client
from tests.server import Server, running_server
from tests.tiny_gguf import write_tiny_gguf

JSON = dict[str, Any]
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"
MODEL: Final = "shared/tiny"
TEMPLATE: Final = (
    b"{{ if .Suffix }}{{ .Prompt }}<gap>{{ .Suffix }}{{ else }}{{ .Tools }}{{ range .Messages }}[{{ .Role }}]"
    b"{{ .Content }}{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}{{ end }}"
)
# What the reference answers with 500 although the client could have known better; its clients compare.
LITERAL_500: Final = re.compile(r'option "\w+" must be of|invalid format: |template error: |invalid value for option')
FEW: Final = {"num_predict": 4, "num_ctx": 512}
LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
LOADING: Final = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "num_predict")

CONFIG: Final = schemathesis.Config.from_dict(
    {
        "seed": 1,
        "generation": {
            "max-examples": 6,
            "deterministic": True,
            "database": "none",
            "no-shrink": True,
            "with-security-parameters": False,
        },
        "phases": {"coverage": {"enabled": False}},
    }
)
SCHEMA: Final = schemathesis.openapi.from_dict(document(), config=CONFIG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openapi")
    with running_server(folder / "data", {"TONNAGE_UPSTREAM": "http://127.0.0.1:9"}) as running:
        layer = {"application/vnd.ollama.image.template": TEMPLATE}
        owner = Client(running.host, running.admin_token)
        owner.push_model(MODEL, "latest", write_tiny_gguf(folder / "tiny.gguf"), layer)
        yield running
        assert "unexpected error" not in running.log


@SCHEMA.exclude(path_regex="^/api/(pull|push)$").parametrize()
def test_answers_are_what_the_description_says(case: schemathesis.Case, server: Server) -> None:
    if case.operation.label == "POST /api/create" and isinstance(case.body, dict):
        case.body.pop("from", None)  # what is missing here would be pulled
    if RIGHTS.get((case.method, case.path)) is Right.INFER and isinstance(case.body, dict):
        case.body = with_few_tokens(case.path, case.body)

    checked(case, server)


WHOLE: Final[JSON] = {"stream": False, "options": FEW}
TALK: Final[JSON] = {"messages": [{"role": "user", "content": "hello"}]}
CALL: Final[JSON] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
USED: Final[JSON] = {"include_usage": True}
SUCCEEDING: Final[list[tuple[str, str, JSON]]] = [
    ("POST", "/api/generate", {"prompt": "hello", "options": FEW}),
    ("POST", "/api/generate", {"prompt": "hello", "logprobs": True, "top_logprobs": 2} | WHOLE),
    ("POST", "/api/generate", {"keep_alive": "5m"}),
    ("POST", "/api/chat", TALK | {"options": FEW}),
    ("POST", "/api/chat", TALK | WHOLE | {"tools": [CALL], "tool_choice": "required"}),
    ("POST", "/api/chat", TALK | {"_debug_render_only": True}),
    ("POST", "/api/embed", {"input": ["hello", "world"]}),
    ("POST", "/api/embeddings", {"prompt": "hello"}),
    ("POST", "/api/tokenize", {"text": "hello", "with_pieces": True}),
    ("POST", "/api/detokenize", {"tokens": [1, 2, 3]}),
    ("POST", "/api/show", {"verbose": True}),
    ("GET", "/api/ps", {}),
    ("GET", "/api/tags", {}),
    ("POST", "/v1/chat/completions", TALK | {"max_tokens": 4}),
    ("POST", "/v1/chat/completions", TALK | {"max_tokens": 4, "logprobs": True, "tools": [CALL]}),
    ("POST", "/v1/chat/completions", TALK | {"max_tokens": 4, "stream": True, "stream_options": USED}),
    ("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 4}),
    ("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 4, "stream": True}),
    ("POST", "/v1/embeddings", {"input": "hello"}),
    ("POST", "/v1/embeddings", {"input": "hello", "encoding_format": "base64"}),
    ("POST", "/v1/responses", {"input": "hello", "max_output_tokens": 4}),
    ("POST", "/v1/responses", {"input": "hello", "max_output_tokens": 4, "stream": True}),
    ("POST", "/v1/messages", TALK | {"max_tokens": 4}),
    ("POST", "/v1/messages", TALK | {"max_tokens": 4, "stream": True}),
    ("POST", "/v1/messages/count_tokens", TALK),
    ("GET", "/v1/models", {}),
    ("GET", "/v1/models/{model}", {}),
    ("GET", "/v2/_catalog", {}),
    ("GET", "/v2/{name}/tags/list", {}),
    ("GET", "/v2/{name}/manifests/{reference}", {}),
    ("HEAD", "/v2/{name}/manifests/{reference}", {}),
    ("GET", "/v2/{name}/blobs/{digest}", {}),
    ("GET", "/v2/{name}/referrers/{digest}", {}),
    ("GET", "/v2/{name}/chunksums/{digest}", {}),
    ("POST", "/v2/{name}/blobs/uploads/", {}),
    ("POST", "/api/create", {"model": "shared/made", "from": MODEL, "system": "Be brief."}),
    ("POST", "/api/create", {"model": "shared/made", "from": MODEL, "stream": False}),
    ("POST", "/api/copy", {"source": MODEL, "destination": "shared/copied"}),
    ("DELETE", "/api/delete", {"model": "shared/copied"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), SUCCEEDING, ids=[f"{m} {p}" for m, p, _ in SUCCEEDING])
def test_what_succeeds_is_what_the_description_says(server: Server, method: str, path: str, body: JSON) -> None:
    if path == "/api/delete":
        Client(server.host).post_json("/api/copy", {"source": MODEL, "destination": "shared/copied"})
    known = {"name": MODEL, "model": MODEL, "reference": "latest", "digest": config_digest(server)}
    asked = {"body": {"model": MODEL} | body, "media_type": "application/json"} if body else {}

    case = SCHEMA[path][method].Case(
        path_parameters={key: known[key] for key in known if f"{{{key}}}" in path}, **asked
    )

    assert checked(case, server).status_code < 300


def config_digest(server: Server) -> str:
    """Of a blob that the model has."""
    digest: str = (
        Client(server.host, server.admin_token).request("GET", f"/v2/{MODEL}/manifests/latest").json["config"]["digest"]
    )
    return digest


def checked(case: schemathesis.Case, server: Server) -> schemathesis.Response:
    return case.call_and_validate(
        base_url=server.url,
        headers={"Authorization": f"Bearer {server.admin_token}"},
        checks=[works, status_code_conformance, content_type_conformance, response_schema_conformance, pieces_conform],
    )


def with_few_tokens(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The request to a model that is here, which stays loaded as it is; what is not as it should be stays so."""
    changed = {key: value for key, value in body.items() if key not in ("keep_alive", *LIMITS)}
    if isinstance(body.get("model"), str):
        changed["model"] = MODEL
    if path.startswith("/v1/"):
        limits = {key: 4 for key in LIMITS if isinstance(body.get(key), int | None)}  # null: no limit
        return changed | {key: body[key] for key in LIMITS if key in body} | limits
    options = body.get("options")
    if isinstance(options, dict):
        changed["options"] = {key: value for key, value in options.items() if key not in LOADING} | FEW
    elif options is None:
        changed["options"] = FEW
    return changed


def works(ctx: Any, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """No error of the server's own."""
    if response.status_code == 501:
        return None
    if response.status_code == 500 and LITERAL_500.match(message_of(response)):
        return None
    return not_a_server_error(ctx, response, case)


def message_of(response: schemathesis.Response) -> str:
    error = response.json().get("error", "")
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def pieces_conform(_: Any, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """Each line of a stream, or what each of its events carries, is as the schema says."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if kind not in (NDJSON, SSE):
        return None
    schema = document()["paths"][case.path]["post"]["responses"]["200"]["content"][kind]["schema"]
    if kind == SSE:
        data = schema["properties"]["data"]
        schema = data.get("anyOf", [data])[0]["contentSchema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": document()["components"]})
    lines = response.text.strip().split("\n")
    texts = lines if kind == NDJSON else [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert texts
    for text in texts:
        if text != "[DONE]":
            validator.validate(json.loads(text))
    return None
