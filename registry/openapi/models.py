"""/api: looking at stored models and changing them. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from registry.openapi.native_schemas import MODEL_OR_NAME, OPTIONS, STREAM
from registry.openapi.operations import JSON_TYPE, NDJSON, Answer, Face, Operation, path_parameter
from registry.openapi.schemas import (
    BOOLEAN,
    COUNT,
    JSON,
    NULL,
    OBJECT,
    STRING,
    TIME,
    answer,
    array,
    asked,
    either,
    mapping,
    one_of,
    ref,
    said,
)

_DONE: Final = (Answer(200, "Done."),)
_BLOB: Final = path_parameter(
    "digest", "`sha256:` and 64 hexadecimal digits.", {"type": "string", "pattern": "^sha256[:-][0-9a-fA-F]{64}$"}
)
_FILES: Final = said("Relative paths, and the digests of what was uploaded.", mapping(STRING))
_USER: Final = answer({"id": {**STRING, "format": "uuid"}, "email": STRING, "name": STRING, "plan": STRING})
_TRANSFER: Final[Mapping[str, JSON]] = {
    **MODEL_OR_NAME,
    "stream": STREAM,
    "insecure": said("Whether plain HTTP may be spoken with the other registry.", BOOLEAN),
}
_CREATE: Final[Mapping[str, JSON]] = {
    **MODEL_OR_NAME,
    "from": said("The model that this one begins as.", STRING),
    "files": _FILES,
    "adapters": _FILES,
    "draft_files": _FILES,
    "draft_quantize": STRING,
    "template": STRING,
    "system": STRING,
    "license": either(STRING, array(STRING)),
    "parameters": OBJECT,
    "messages": array(asked({"role": STRING, "content": STRING}, {})),
    "quantize": said("The level that F16, BF16 or F32 weights are brought to.", STRING),
    "quantization": said("The older word for `quantize`.", STRING),
    "renderer": STRING,
    "parser": STRING,
    "requires": STRING,
    "info": OBJECT,
    "modelfile": said("The text of a Modelfile, from older clients.", STRING),
    "stream": STREAM,
}
_SHOWN: Final = answer(
    {"details": OBJECT, "model_info": ref("Metadata"), "capabilities": array(STRING), "modified_at": TIME},
    {
        "license": STRING,
        "modelfile": STRING,
        "parameters": STRING,
        "template": STRING,
        "system": STRING,
        "messages": array(OBJECT),
        "requires": STRING,
        "projector_info": ref("Metadata"),
        "tensors": array(answer({"name": STRING, "type": STRING, "shape": array(COUNT)})),
        "remote_model": STRING,
        "remote_host": STRING,
        "reason": said("Why it cannot run.", STRING),
    },
)


def _working(path: str, summary: str, body: Mapping[str, JSON]) -> Operation:
    """A route that tells how far it has come, line by line, or its last word alone."""
    lines = either(ref("Progress"), ref("Failure"))
    told = Answer(
        200, "A line for each step, `success` the last; or the last alone.", {NDJSON: lines, JSON_TYPE: lines}
    )
    return Operation("POST", path, summary, (told,), (400, 404, 413, 500, 503), {JSON_TYPE: asked({}, body)})


def _told(method: str, path: str, summary: str, reply: JSON, *refusals: int) -> Operation:
    return Operation(method, path, summary, (Answer(200, "The answer.", {JSON_TYPE: reply}),), refusals)


_VERSION: Final = answer({"version": {**STRING, "pattern": r"^\d+\.\d+\.\d+$"}})
_CLOUD: Final = answer({"cloud": answer({"disabled": BOOLEAN, "source": one_of("none", "env", "config", "both")})})
_LISTED: Final = answer({"models": array(ref("ListedModel"))})
_RECOMMENDED: Final = answer(
    {"recommendations": array(answer({"model": STRING, "description": STRING}, {"context_length": COUNT}))}
)
_NAMED: Final = {JSON_TYPE: asked({}, MODEL_OR_NAME)}


def _looking() -> tuple[Operation, ...]:
    show = {**MODEL_OR_NAME, "verbose": BOOLEAN, "system": STRING, "options": OPTIONS, "template": STRING}
    told = (Answer(200, "All that is known of it.", {JSON_TYPE: _SHOWN}),)
    listed = "The stored models that the caller may see, the newest first"
    return (
        _told("GET", "/api/version", "The version of the dialect", _VERSION),
        Operation("HEAD", "/api/version", "The same, without the version", _DONE),
        _told("GET", "/api/status", "That there is no cloud behind this server", _CLOUD),
        _told("GET", "/api/tags", listed, _LISTED, 503),
        Operation("HEAD", "/api/tags", "The same, without the models", _DONE, (503,)),
        Operation(
            "POST", "/api/show", "One model", told, (400, 404, 413, 500, 503), {JSON_TYPE: asked({}, show)}
        ),
    )  # fmt: skip


def _changing() -> tuple[Operation, ...]:
    copied, removed = asked({"source": STRING, "destination": STRING}, {}), asked({}, {**MODEL_OR_NAME, "now": BOOLEAN})
    stored = (Answer(200, "It was here already."), Answer(201, "It is stored."))
    octets: dict[str, JSON] = {"application/octet-stream": {}}
    failures = (400, 404, 413, 503)
    return (
        _working("/api/create", "Make a model of what was uploaded or is stored already", _CREATE),
        Operation("POST", "/api/copy", "Give a model another name", _DONE, failures, {JSON_TYPE: copied}),
        Operation("DELETE", "/api/delete", "Take a model's name away", _DONE, failures, {JSON_TYPE: removed}),
        _working("/api/pull", "Bring a model here from another registry", _TRANSFER),
        _working("/api/push", "Send a model to another registry", _TRANSFER),
        Operation("HEAD", "/api/blobs/{digest}", "Whether a blob is here", _DONE, (400, 404, 503), parameters=(_BLOB,)),
        Operation(
            "POST",
            "/api/blobs/{digest}",
            "Upload a blob that a model is to be made of",
            stored,
            (400, 503, 507),
            octets,
            (_BLOB,),
            needs_body=False,
        ),
    )


def _account() -> tuple[Operation, ...]:
    key = path_parameter("encoded_key", "Whatever the client has; no key is taken away.")
    nothing = (Answer(200, "There was nothing to end.", {JSON_TYPE: NULL}),)
    search = {JSON_TYPE: OBJECT}
    return (
        _told("POST", "/api/me", "Who asks", _USER),
        Operation("POST", "/api/signout", "End a session; there is none", nothing),
        Operation("DELETE", "/api/user/keys/{encoded_key}", "The older way to say so", nothing, parameters=(key,)),
        Operation("POST", "/api/experimental/web_search", "Refused: there is no cloud", (), (400, 413), search),
        Operation("POST", "/api/experimental/web_fetch", "Refused: there is no cloud", (), (400, 413), search),
        _told("GET", "/api/experimental/model-recommendations", "The newest models of this server", _RECOMMENDED, 503),
    )


FACE: Final = Face(
    tag="Ollama: manage",
    text="The stored models in the words of the Ollama API.",
    error={JSON_TYPE: ref("Refused")},
    denials=(403,),
    operations=(*_looking(), *_changing(), *_account()),
)
