"""/api: asking models. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from registry.openapi.native_schemas import (
    FORMAT,
    KEEP_ALIVE,
    MODEL,
    OPTIONS,
    SCHEMAS,
    STATISTICS,
    STREAM,
    THINK,
    TRUNCATE,
)
from registry.openapi.operations import JSON_TYPE, NDJSON, Answer, Face, Operation
from registry.openapi.schemas import (
    BASE64,
    BOOLEAN,
    COUNT,
    INTEGER,
    JSON,
    NUMBER,
    OBJECT,
    STRING,
    TIME,
    answer,
    array,
    asked,
    either,
    one_of,
    ref,
    said,
)

_REFUSALS: Final = (400, 404, 413, 500, 503, 507)
_HEADERS: Final = {"Tonnage-Truncated": "`true` where something did not fit the context."}
_GENERATING: Final[Mapping[str, JSON]] = {
    "stream": STREAM,
    "format": FORMAT,
    "options": OPTIONS,
    "think": THINK,
    "truncate": TRUNCATE,
    "keep_alive": KEEP_ALIVE,
    "shift": said("Whether an answer goes on when the context is full.", BOOLEAN),
    "logprobs": BOOLEAN,
    "top_logprobs": {**INTEGER, "minimum": 0, "maximum": 20},
    "_debug_render_only": said("Show the prompt and generate nothing.", BOOLEAN),
}
_COMMON: Final[Mapping[str, JSON]] = {"model": STRING, "created_at": TIME, "done": BOOLEAN}
_ENDING: Final[Mapping[str, JSON]] = {
    "done_reason": one_of("stop", "length", "load", "unload"),
    "logprobs": array(ref("Logprob")),
    "_debug_info": ref("DebugInfo"),
    "truncated": said("Something is lost: of what was sent, or out of the window.", BOOLEAN),
    **STATISTICS,
}


def _generating(path: str, summary: str, body: JSON, piece: JSON) -> Operation:
    lines = either(piece, ref("Failure"))
    told = "The answer: a line for each piece and one with the figures, or one object where that was asked for."
    content = {NDJSON: lines, JSON_TYPE: piece}
    return Operation("POST", path, summary, (Answer(200, told, content, _HEADERS),), _REFUSALS, {JSON_TYPE: body})


def _asking(path: str, summary: str, body: JSON, reply: JSON) -> Operation:
    return Operation(
        "POST", path, summary, (Answer(200, "The answer.", {JSON_TYPE: reply}),), _REFUSALS, {JSON_TYPE: body}
    )


_GENERATE: Final = _generating(
    "/api/generate",
    "The answer to one prompt; without a prompt the model is loaded or unloaded",
    asked(
        {"model": MODEL},
        {
            "prompt": STRING,
            "suffix": said("What comes after the gap that is to be filled.", STRING),
            "system": STRING,
            "template": STRING,
            "context": said("Token ids that an earlier answer gave back.", array({**INTEGER, "minimum": 0})),
            "raw": said("Whether the prompt goes to the model as it is.", BOOLEAN),
            "images": array(BASE64),
            **_GENERATING,
        },
    ),
    answer({**_COMMON, "response": STRING}, {"thinking": STRING, "context": array(INTEGER), **_ENDING}),
)
_CHAT: Final = _generating(
    "/api/chat",
    "The next message of a conversation; without messages the model is loaded or unloaded",
    asked(
        {"model": MODEL},
        {
            "messages": array(ref("Message")),
            "tools": array(ref("Tool")),
            "tool_choice": said("As in the OpenAI API.", either(one_of("auto", "none", "required"), OBJECT)),
            **_GENERATING,
        },
    ),
    answer({**_COMMON, "message": ref("Answered")}, _ENDING),
)
_EMBED: Final = _asking(
    "/api/embed",
    "A unit vector for each text",
    asked(
        {"model": MODEL},
        {
            "input": either(STRING, array(STRING)),
            "truncate": TRUNCATE,
            "dimensions": said("Keep so many components.", INTEGER),
            "keep_alive": KEEP_ALIVE,
            "options": OPTIONS,
        },
    ),
    answer({"model": STRING, "embeddings": array(array(NUMBER))}, STATISTICS),
)
_EMBEDDINGS: Final = _asking(
    "/api/embeddings",
    "The vector of one text, for older clients",
    asked({"model": MODEL}, {"prompt": STRING, "keep_alive": KEEP_ALIVE, "options": OPTIONS}),
    answer({"embedding": array(NUMBER)}),
)
RERANK_BODY: Final = asked(
    {
        "model": MODEL,
        "query": STRING,
        "documents": array(either(STRING, asked({"text": STRING}, {})), minItems=1, maxItems=1000),
    },
    {"top_n": {**INTEGER, "minimum": 1}, "return_documents": BOOLEAN, "truncate": TRUNCATE, "keep_alive": KEEP_ALIVE},
)
RERANK_REPLY: Final = answer(
    {
        "model": STRING,
        "results": array(
            answer(
                {"index": COUNT, "relevance_score": {**NUMBER, "minimum": 0, "maximum": 1}},
                {"document": answer({"text": STRING})},
            )
        ),
        "usage": answer({"prompt_tokens": COUNT, "total_tokens": COUNT}),
    }
)
_TOKENIZE: Final = _asking(
    "/api/tokenize",
    "How a model spells a text",
    asked(
        {"model": MODEL, "text": said("Or `content`, or `prompt`.", STRING)},
        {
            "content": STRING,
            "prompt": STRING,
            "add_special": BOOLEAN,
            "parse_special": BOOLEAN,
            "with_pieces": said("Show beside each token what it stands for.", BOOLEAN),
            "keep_alive": KEEP_ALIVE,
        },
    ),
    answer(
        {
            "model": STRING,
            "tokens": array(either(INTEGER, answer({"id": INTEGER, "piece": either(STRING, array(INTEGER))}))),
            "total_duration": COUNT,
            "load_duration": COUNT,
        }
    ),
)
_DETOKENIZE: Final = _asking(
    "/api/detokenize",
    "The text of token ids",
    asked({"model": MODEL, "tokens": array({**INTEGER, "minimum": 0})}, {"keep_alive": KEEP_ALIVE}),
    answer({"model": STRING, "text": STRING, "content": STRING, "total_duration": COUNT, "load_duration": COUNT}),
)
_FETCHED: Final = said(
    "Weights on their way from a bucket to this node.",
    answer({"repository": STRING, "digest": STRING, "total": COUNT, "completed": COUNT}),
)
_RUNNING: Final = answer({"models": array(ref("RunningModel"))}, {"fetching": array(_FETCHED)})
_PS: Final = Operation(
    "GET",
    "/api/ps",
    "The loaded models that the caller may see, the one that stays longest first",
    (Answer(200, "The list.", {JSON_TYPE: _RUNNING}),),
    (503,),
)

FACE: Final = Face(
    tag="Ollama: ask",
    text="Inference in the words of the Ollama API. Keys of requests are read in any case, and null is absence.",
    error={JSON_TYPE: ref("Refused")},
    denials=(403,),
    operations=(
        _GENERATE,
        _CHAT,
        _EMBED,
        _EMBEDDINGS,
        _asking("/api/rerank", "Documents in the order in which they answer a query", RERANK_BODY, RERANK_REPLY),
        _TOKENIZE,
        _DETOKENIZE,
        _PS,
    ),
    schemas=SCHEMAS,
)
