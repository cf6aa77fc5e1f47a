"""POST /api/tokenize and /api/detokenize: how a model spells text, without loading its weights.

The Ollama API has no such routes yet. Names are those that its clients' drafts and llama.cpp's own server use: the text
is `text`, `content` or `prompt`, and comes back as `text` and as `content`; `add_special`, `parse_special` and
`with_pieces` mean what they do there.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from runtime.api.errors import Refused
from runtime.api.replies import one_object
from runtime.api.requests import Body
from runtime.api.serving import TRY_PULLING, Call

JSON = dict[str, Any]
_TEXTS = ("text", "content", "prompt")
_MOST_TEXT_BYTES = 8 * 1024**2  # six seconds' work; twice what has as many tokens as an answer may have
_MOST_TOKENS = 2**20


def tokenize() -> Response:
    """The token ids of a text; with `with_pieces` each beside the text it stands for, or its bytes."""
    call = Call.from_request()
    text = _text(call.body)
    add_special = call.body.flag("add_special", False)
    parse_special = call.body.flag("parse_special", True)
    with_pieces = call.body.flag("with_pieces", False)
    with call.lease_vocabulary(call.find_model(TRY_PULLING)) as lease:
        loaded_ns = time.monotonic_ns()
        tokens = lease.tokenize(
            text, add_special=add_special, parse_special=parse_special, is_cancelled=call.is_cancelled
        )
        shown: list[Any] = tokens
        if with_pieces:
            pieces = lease.pieces(tokens, is_cancelled=call.is_cancelled)
            shown = [{"id": token, "piece": piece} for token, piece in zip(tokens, pieces, strict=True)]
    return one_object({"model": call.model_name, "tokens": shown, **_durations(call, loaded_ns)})


def detokenize() -> Response:
    """The text of token ids, special ones spelt out."""
    call = Call.from_request()
    tokens = _tokens(call.body)
    with call.lease_vocabulary(call.find_model(TRY_PULLING)) as lease:
        loaded_ns = time.monotonic_ns()
        text = lease.detokenize(tokens, is_cancelled=call.is_cancelled)
    return one_object({"model": call.model_name, "text": text, "content": text, **_durations(call, loaded_ns)})


def _text(body: Body) -> str:
    """What is to be tokenised, which may be empty but not missing. Raises Refused."""
    given = next((key for key in _TEXTS if body.raw(key) is not None), None)
    if given is None:
        raise Refused(400, "text is required")
    text = body.text(given)
    if len(text) > _MOST_TEXT_BYTES or len(text.encode("utf-8", "replace")) > _MOST_TEXT_BYTES:
        raise Refused(400, f"the text is larger than {_MOST_TEXT_BYTES} bytes, the most of one call")
    return text


def _tokens(body: Body) -> list[int]:
    tokens = body.integers("tokens")
    if tokens is None:
        raise Refused(400, "tokens are required")
    if len(tokens) > _MOST_TOKENS:
        raise Refused(400, f"too many tokens: {len(tokens)}, and {_MOST_TOKENS} are the most of one call")
    return tokens


def _durations(call: Call, loaded_ns: int) -> JSON:
    return {
        "total_duration": time.monotonic_ns() - call.started_ns,
        "load_duration": loaded_ns - call.started_ns,
    }
