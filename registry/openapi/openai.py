"""/v1: the OpenAI dialect. Source: the Ollama API, "POST /v1/chat/completions" and those after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from registry.openapi.inference import RERANK_BODY, RERANK_REPLY
from registry.openapi.native_schemas import MODEL
from registry.openapi.operations import JSON_TYPE, SSE, Answer, Face, Operation, path_parameter
from registry.openapi.schemas import (
    BASE64,
    BOOLEAN,
    COUNT,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    answer,
    array,
    asked,
    constants,
    either,
    events,
    one_of,
    or_null,
    ref,
    said,
)

_REFUSALS: Final = (400, 404, 413, 500, 503, 507)
_EFFORT: Final = one_of("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max")
_SAMPLING: Final[Mapping[str, JSON]] = {
    "stream": {**BOOLEAN, "default": False},
    "temperature": {**NUMBER, "default": 1.0},
    "top_p": NUMBER,
    "seed": INTEGER,
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "n": said("One answer a request.", {**INTEGER, "maximum": 1}),
}
_STREAMED: Final[Mapping[str, JSON]] = {"stream_options": asked({}, {"include_usage": BOOLEAN})}
_REASONING: Final[Mapping[str, JSON]] = {
    "reasoning": asked({}, {"effort": _EFFORT}),
    "reasoning_effort": _EFFORT,
}
_STOP: Final[Mapping[str, JSON]] = {"stop": either(STRING, array(STRING))}
_USAGE: Final = answer({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT})
_HEAD: Final[Mapping[str, JSON]] = {"id": STRING, "created": INTEGER, "model": STRING, "system_fingerprint": STRING}
_REASON: Final = one_of("stop", "length", "tool_calls", "load")

_SCHEMAS: Final[Mapping[str, JSON]] = {
    "OpenAIError": answer(
        {"error": answer({"message": STRING, "type": STRING, "param": or_null(STRING), "code": or_null(STRING)})}
    ),
    "OpenAIMessage": asked(
        {"role": STRING},
        {
            "content": said("Text, or parts: `text`, or `image_url` with a data URI.", either(STRING, array(OBJECT))),
            "reasoning": STRING,
            "name": STRING,
            "tool_call_id": STRING,
            "tool_calls": array(ref("OpenAIToolCall")),
        },
    ),
    "OpenAIToolCall": asked(
        {"function": asked({"name": STRING}, {"arguments": said("JSON as text.", STRING)})},
        {"id": STRING, "index": INTEGER, **constants("type", "function")},
    ),
    "OpenAIModel": answer({"id": STRING, "created": INTEGER, "owned_by": STRING, **constants("object", "model")}),
}

_CHAT: Final = asked(
    {"model": MODEL, "messages": array(ref("OpenAIMessage"), minItems=1)},
    {
        **_SAMPLING,
        **_STREAMED,
        **_REASONING,
        **_STOP,
        "max_tokens": INTEGER,
        "max_completion_tokens": INTEGER,
        "response_format": asked({"type": STRING}, {"json_schema": asked({}, {"schema": OBJECT})}),
        "tools": array(ref("Tool")),
        "tool_choice": either(one_of("auto", "none", "required"), OBJECT),
        "logprobs": BOOLEAN,
        "top_logprobs": {**INTEGER, "minimum": 0, "maximum": 20},
        "_debug_render_only": BOOLEAN,
    },
)
_CHAT_MESSAGE: Final = answer(
    {"content": STRING, **constants("role", "assistant")},
    {"reasoning": STRING, "tool_calls": array(ref("OpenAIToolCall"))},
)
_CHAT_REPLY: Final = answer(
    {
        **_HEAD,
        **constants("object", "chat.completion"),
        "choices": array(answer({"index": COUNT, "message": _CHAT_MESSAGE, "finish_reason": _REASON})),
        "usage": _USAGE,
    },
    {"_debug_info": ref("DebugInfo")},
)
_TEXT: Final = asked(
    {"model": MODEL},
    {
        **_SAMPLING,
        **_STREAMED,
        **_STOP,
        "prompt": either(STRING, array(STRING, maxItems=1)),
        "suffix": STRING,
        "max_tokens": INTEGER,
        "logprobs": {**INTEGER, "minimum": 0, "maximum": 20},
        "_debug_render_only": BOOLEAN,
    },
)
_TEXT_REPLY: Final = answer(
    {
        **_HEAD,
        **constants("object", "text_completion"),
        "choices": array(answer({"index": COUNT, "text": STRING, "finish_reason": _REASON})),
        "usage": _USAGE,
    },
    {"_debug_info": ref("DebugInfo")},
)
_EMBED: Final = asked(
    {"model": MODEL, "input": either({**STRING}, array(STRING, minItems=1))},
    {"dimensions": INTEGER, "encoding_format": one_of("float", "base64")},
)
_VECTOR: Final = answer(
    {"embedding": either(array(NUMBER), BASE64), "index": COUNT, **constants("object", "embedding")}
)
_EMBED_REPLY: Final = answer(
    {
        **constants("object", "list"),
        "data": array(_VECTOR),
        "model": STRING,
        "usage": answer({"prompt_tokens": COUNT, "total_tokens": COUNT}),
    }
)
_RESPOND: Final = asked(
    {"model": MODEL, "input": either({**STRING, "minLength": 1}, array(OBJECT, minItems=1))},
    {
        "instructions": STRING,
        "stream": {**BOOLEAN, "default": False},
        "max_output_tokens": INTEGER,
        "temperature": {**NUMBER, "default": 1.0},
        "top_p": NUMBER,
        "reasoning": asked({}, {"effort": _EFFORT}),
        "text": asked({}, {"format": asked({"type": STRING}, {"schema": OBJECT})}),
        "tools": array(OBJECT),
        "tool_choice": either(one_of("auto", "none", "required"), OBJECT),
    },
)
_RESPONSE: Final = answer(
    {
        "id": STRING,
        **constants("object", "response"),
        "created_at": INTEGER,
        "status": one_of("completed", "in_progress"),
        "model": STRING,
        "output": array(answer({"id": STRING, "type": one_of("reasoning", "message", "function_call")})),
        "usage": either(answer({"input_tokens": COUNT, "output_tokens": COUNT, "total_tokens": COUNT}), NULL),
    }
)
_LISTEN: Final[JSON] = {
    "type": "object",
    "properties": {"model": STRING, "file": {"type": "string", "format": "binary"}},
    "required": ["model", "file"],
}


_USED: Final = {"usage": or_null(_USAGE)}
_CHAT_CHUNK: Final = answer(
    {
        **_HEAD,
        **constants("object", "chat.completion.chunk"),
        "choices": array(answer({"index": COUNT, "delta": OBJECT, "finish_reason": or_null(_REASON)})),
    },
    _USED,
)
_TEXT_CHUNK: Final = answer(
    {
        **_HEAD,
        **constants("object", "text_completion"),
        "choices": array(answer({"index": COUNT, "text": STRING, "finish_reason": or_null(_REASON)})),
    },
    _USED,
)
_EVENT: Final = answer(
    {"type": STRING, "sequence_number": COUNT},
    {"response": OBJECT, "item": OBJECT, "output_index": COUNT, "content_index": COUNT, "delta": STRING},
)
_EVENTS: Final = said("Items as they grow, each named by its type.", events(either(_EVENT, ref("OpenAIError"))))


def _chunks(chunk: JSON) -> JSON:
    return said(
        "A piece of the answer, or what it broke off for.", events(either(chunk, ref("OpenAIError")), (), "[DONE]")
    )


def _asking(path: str, summary: str, body: JSON, reply: JSON, stream: JSON | None = None) -> Operation:
    """stream: one event of the answer, where it may come as events."""
    content = {JSON_TYPE: reply} | ({SSE: stream} if stream is not None else {})
    return Operation("POST", path, summary, (Answer(200, "The answer.", content),), _REFUSALS, {JSON_TYPE: body})


FACE: Final = Face(
    tag="OpenAI",
    text="Inference and models in the words of the OpenAI API. Bodies may be compressed (`Content-Encoding: zstd`).",
    error={JSON_TYPE: ref("OpenAIError")},
    denials=(401, 403),
    operations=(
        _asking("/v1/chat/completions", "The next message of a conversation", _CHAT, _CHAT_REPLY, _chunks(_CHAT_CHUNK)),
        _asking("/v1/completions", "What comes after a prompt", _TEXT, _TEXT_REPLY, _chunks(_TEXT_CHUNK)),
        _asking("/v1/embeddings", "A vector for each text", _EMBED, _EMBED_REPLY),
        _asking("/v1/responses", "The items that a model answers with", _RESPOND, _RESPONSE, _EVENTS),
        _asking("/v1/rerank", "Documents in the order in which they answer a query", RERANK_BODY, RERANK_REPLY),
        Operation(
            "POST",
            "/v1/audio/transcriptions",
            "Refused until a model here can listen",
            (),
            (400, 404, 413, 501, 503),
            {"multipart/form-data": _LISTEN},
        ),
        Operation(
            "GET",
            "/v1/models",
            "The stored models that the caller may see",
            (Answer(200, "The list.", {JSON_TYPE: answer({"data": array(ref("OpenAIModel"))})}),),
            (503,),
        ),
        Operation(
            "GET",
            "/v1/models/{model}",
            "One model, under the name that the client used",
            (Answer(200, "The model.", {JSON_TYPE: ref("OpenAIModel")}),),
            (400, 404, 503),
            parameters=(path_parameter("model", "Its name, whose slashes may be escaped or not."),),
        ),
    ),
    schemas=_SCHEMAS,
)
