"""JSON of the Ollama API. Source: the Ollama API, "Endpoints" and "Options"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from registry.openapi.schemas import (
    BASE64,
    BOOLEAN,
    COUNT,
    HEX_DIGEST,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    TIME,
    answer,
    array,
    asked,
    constants,
    either,
    mapping,
    one_of,
    ref,
    said,
)
from runtime.api.requests import THINK_LEVELS
from runtime.options import LoadOptions, SampleOptions

_OF_ANNOTATION: Final[Mapping[object, JSON]] = {
    "int": INTEGER,
    "int | None": INTEGER,
    "float": NUMBER,
    "bool | None": BOOLEAN,
    "tuple[str, ...]": array(STRING, maxItems=256),
}
_DURATION: Final = "A duration such as `5m`, or seconds; negative is for ever, 0 at once."

MODEL: Final = said("A model, `[host/][namespace/]model[:tag]`, in any case.", STRING)
MODEL_OR_NAME: Final[Mapping[str, JSON]] = {"model": MODEL, "name": said("The older word for `model`.", STRING)}
KEEP_ALIVE: Final = said(_DURATION, either(STRING, NUMBER))
STREAM: Final = said("Whether the answer comes line by line.", {**BOOLEAN, "default": True})
TRUNCATE: Final = said("Whether what does not fit the context is left out; else it is refused.", BOOLEAN)
FORMAT: Final = said("`json`, or a JSON Schema that the answer is held to.", either(one_of("json", ""), OBJECT))
THINK: Final = said("Whether, and how hard, the model reasons first.", either(BOOLEAN, one_of(*THINK_LEVELS)))
OPTIONS: Final = ref("Options")
STATISTICS: Final[Mapping[str, JSON]] = {
    "total_duration": said("Nanoseconds since the request arrived.", COUNT),
    "load_duration": said("Nanoseconds until the model was there.", COUNT),
    "prompt_eval_count": said("Tokens of the prompt.", COUNT),
    "prompt_eval_duration": COUNT,
    "eval_count": said("Tokens of the answer.", COUNT),
    "eval_duration": COUNT,
}
PROGRESS_LINE: Final = answer(
    {"status": {**STRING, "minLength": 1}}, {"digest": STRING, "total": COUNT, "completed": COUNT}
)


def _options() -> JSON:
    """Every option with its type and default, as the runtime has them."""
    described = {}
    for each in (*fields(LoadOptions), *fields(SampleOptions)):
        schema = _OF_ANNOTATION[each.type]
        described[each.name] = {**schema, "default": each.default} if isinstance(each.default, int | float) else schema
    return said("Unknown and older options are ignored.", asked({}, described))


def _details() -> JSON:
    texts = ("parent_model", "format", "family", "parameter_size", "quantization_level")
    lengths = dict.fromkeys(("context_length", "embedding_length"), COUNT)
    return answer(dict.fromkeys(texts, STRING) | {"families": either(array(STRING), NULL)}, lengths)


def _logprob() -> JSON:
    alternative = {"token": STRING, "logprob": NUMBER}
    listed = array(answer(alternative, {"bytes": array(INTEGER)}))
    return answer(alternative, {"bytes": array(INTEGER), "top_logprobs": listed})


_CALL: Final = asked(
    {"function": asked({"name": STRING}, {"index": INTEGER, "arguments": OBJECT})},
    {"id": STRING, **constants("type", "function")},
)
_TEXTS: Final = {"content": STRING, "thinking": STRING, "tool_name": STRING, "tool_call_id": STRING}

SCHEMAS: Final[Mapping[str, JSON]] = {
    "Refused": answer({"error": STRING}),
    "Options": _options(),
    "ToolCall": _CALL,
    "Message": asked(
        {"role": said("`system`, `user`, `assistant`, `tool`, or what the template knows besides.", STRING)},
        {**_TEXTS, "images": array(BASE64), "tool_calls": array(ref("ToolCall"))},
    ),
    "Tool": asked(
        {"function": asked({"name": STRING}, {"description": STRING, "parameters": OBJECT})},
        {**constants("type", "function")},
    ),
    "Answered": answer(
        {"role": one_of("assistant"), "content": STRING}, {"thinking": STRING, "tool_calls": array(ref("ToolCall"))}
    ),
    "Logprob": _logprob(),
    "DebugInfo": answer({"rendered_template": STRING}, {"image_count": COUNT}),
    "ModelDetails": _details(),
    "RunningModel": answer(
        {"name": STRING, "model": STRING, "size": COUNT, "digest": HEX_DIGEST, "details": OBJECT}
        | {"expires_at": TIME, "size_vram": COUNT, "context_length": COUNT}
    ),
    "ListedModel": answer(
        {"name": STRING, "model": STRING, "modified_at": TIME, "size": COUNT, "digest": HEX_DIGEST}
        | {"details": ref("ModelDetails")},
        {
            "capabilities": array(STRING),
            "remote_model": STRING,
            "remote_host": STRING,
            "reason": said("Why it cannot run.", STRING),
        },
    ),
    "Progress": PROGRESS_LINE,
    "Failure": said("The last line of a stream that broke off.", answer({"error": STRING})),
    "Metadata": said("What the weights' header says; long arrays are null unless `verbose`.", mapping({})),
}
