"""/v1/messages: the Anthropic dialect. Source: the Ollama API, "POST /v1/messages"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from registry.openapi.native_schemas import MODEL
from registry.openapi.operations import JSON_TYPE, SSE, Answer, Face, Operation
from registry.openapi.schemas import (
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
    ref,
    said,
    words,
)
from runtime.api.anthropic.errors import TYPES

_REFUSALS: Final = (400, 404, 413, 500, 503, 507)
_BLOCKS: Final = "Text, or blocks: `text`, `image`, `thinking`, `tool_use`, `tool_result` …"
_REQUEST_ID: Final = {"Request-Id": "The id of this request, `req_` and 24 hexadecimal digits."}

_SCHEMAS: Final[Mapping[str, JSON]] = {
    "AnthropicError": answer(
        {
            **constants("type", "error"),
            "error": answer({"type": words([*TYPES.values(), "api_error"]), "message": STRING}),
            "request_id": {**STRING, "pattern": "^req_[0-9a-f]{24}$"},
        }
    ),
    "AnthropicBlock": answer(
        {"type": one_of("text", "thinking", "tool_use")},
        {"text": STRING, "thinking": STRING, "signature": STRING, "id": STRING, "name": STRING, "input": OBJECT},
    ),
    "AnthropicTool": asked({"name": {**STRING, "minLength": 1}}, {"description": STRING, "input_schema": OBJECT}),
}
_CONVERSATION: Final[Mapping[str, JSON]] = {
    "system": said("Text, or blocks of text.", either(STRING, array(OBJECT))),
    "tools": array(ref("AnthropicTool")),
    "tool_choice": asked({"type": one_of("auto", "any", "tool", "none")}, {"name": STRING}),
    "thinking": asked({"type": one_of("enabled", "disabled", "adaptive")}, {"budget_tokens": INTEGER}),
    "output_config": asked(
        {},
        {
            "effort": one_of("low", "medium", "high", "xhigh", "max"),
            "format": asked({**constants("type", "json_schema"), "schema": OBJECT}, {}),
        },
    ),
}
_MESSAGES: Final = array(
    asked({"role": one_of("user", "assistant"), "content": said(_BLOCKS, either(STRING, array(OBJECT)))}, {}),
    minItems=1,
)
_ASK: Final = asked(
    {"model": MODEL, "messages": _MESSAGES, "max_tokens": {**INTEGER, "minimum": 1}},
    {
        **_CONVERSATION,
        "stream": {**BOOLEAN, "default": False},
        "temperature": NUMBER,
        "top_p": NUMBER,
        "top_k": INTEGER,
        "stop_sequences": array(STRING, maxItems=256),
    },
)
_MESSAGE: Final = answer(
    {
        "id": {**STRING, "pattern": "^msg_[0-9a-f]{24}$"},
        **constants("type", "message"),
        **constants("role", "assistant"),
        "model": STRING,
        "content": array(ref("AnthropicBlock")),
        "stop_reason": one_of("end_turn", "max_tokens", "tool_use", "stop_sequence"),
        "stop_sequence": either(STRING, NULL),
        "usage": answer({"input_tokens": COUNT, "output_tokens": COUNT}),
    }
)
_NAMES: Final = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
)
_EVENT: Final = answer(
    {"type": one_of(*_NAMES)},
    {
        "message": OBJECT,
        "index": COUNT,
        "content_block": ref("AnthropicBlock"),
        "delta": OBJECT,
        "usage": OBJECT,
        "error": OBJECT,
        "request_id": STRING,
    },
)
_EVENTS: Final = said(
    "The message without content, then its blocks, each begun, continued and ended, then how the message ended.",
    events(_EVENT, _NAMES),
)

FACE: Final = Face(
    tag="Anthropic",
    text="Inference in the words of the Anthropic API. Bodies may be compressed (`Content-Encoding: zstd`).",
    error={JSON_TYPE: ref("AnthropicError")},
    denials=(401, 403),
    operations=(
        Operation(
            "POST",
            "/v1/messages",
            "The next message of a conversation",
            (Answer(200, "The answer.", {JSON_TYPE: _MESSAGE, SSE: _EVENTS}, _REQUEST_ID),),
            _REFUSALS,
            {JSON_TYPE: _ASK},
        ),
        Operation(
            "POST",
            "/v1/messages/count_tokens",
            "How many tokens a conversation has",
            (Answer(200, "The count.", {JSON_TYPE: answer({"input_tokens": COUNT})}, _REQUEST_ID),),
            _REFUSALS,
            {JSON_TYPE: asked({"model": MODEL, "messages": _MESSAGES}, _CONVERSATION)},
        ),
    ),
    schemas=_SCHEMAS,
)
