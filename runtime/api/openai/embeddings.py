"""POST /v1/embeddings. Source: the Ollama API, "POST /v1/embeddings"."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Response

from runtime.api.embed import array_text, body_of, cut, in_pieces, parse_inputs, vectors_of
from runtime.api.errors import Refused
from runtime.api.openai import requests
from runtime.api.openai.replies import CONTENT_TYPE
from runtime.api.replies import encode
from runtime.api.requests import Body
from runtime.api.serving import Call

JSON = dict[str, Any]


def embeddings() -> Response:
    """A vector for each input, as numbers or as the base64 of little-endian float32."""
    body, started_ns = requests.read_request()
    inputs = _inputs(body.raw("input"))
    write = _writer(body.text("encoding_format"))
    dimensions = body.integer("dimensions")
    call = Call.of(Body({"model": body.raw("model")}), started_ns)
    found, _ = vectors_of(call, inputs)
    usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    tail = b"]," + encode({"model": call.model_name, "usage": usage})[1:] + b"\n"
    items = (
        f'{{"object":"embedding","embedding":{write(cut(vector, dimensions))},"index":{index}}}'
        for index, vector in enumerate(found.vectors)
    )
    return Response(body_of(in_pieces(b'{"object":"list","data":[', items, tail), found), content_type=CONTENT_TYPE)


def _inputs(given: object) -> list[str]:
    """Raises Refused. An empty text is an input like others here."""
    if given is None or given == []:
        raise Refused(400, "invalid input")
    return parse_inputs([given] if isinstance(given, str) else given)


def _base64_text(vector: array[float]) -> str:
    """A JSON string; base64 has nothing that JSON must escape."""
    return f'"{base64.b64encode(vector.tobytes()).decode()}"'


_WRITERS: Final[Mapping[str, Callable[[array[float]], str]]] = {
    "": array_text,
    "float": array_text,
    "base64": _base64_text,
}


def _writer(encoding: str) -> Callable[[array[float]], str]:
    write = _WRITERS.get(encoding.lower())
    if write is None:
        shown = encoding[:100]
        raise Refused(400, f"Invalid value for 'encoding_format' = {shown}. Supported values: ['float', 'base64'].")
    return write
