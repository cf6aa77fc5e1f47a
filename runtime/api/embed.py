"""POST /api/embed, and /api/embeddings for old clients. Source: the Ollama API, "POST /api/embed"."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response

from runtime.api.errors import Refused
from runtime.api.replies import encode, one_object
from runtime.api.serving import TRY_PULLING, Call
from runtime.errors import InputInvalid
from runtime.supervisor.lease import Embeddings

JSON = dict[str, Any]
_MOST_INPUTS = 50_000  # all their vectors are held at once; `Lease.embed` bounds these
_AT_ONCE = 8192  # numbers of an answer that is made whole: some 100 KB
_PIECE = 96 * 1024  # characters of a body that leave together
_JSON_TYPE = "application/json; charset=utf-8"


def embed() -> Response:
    """A unit vector for each input, in their order; without input the model is only loaded."""
    call = Call.from_request()
    inputs = parse_inputs(call.body.raw("input"))
    dimensions = call.body.integer("dimensions")
    found, load_ns = vectors_of(call, inputs)
    if not inputs:
        return one_object({"model": call.model_name, "embeddings": []})
    head, tail = encode({"model": call.model_name}), encode(_statistics(call, load_ns, found))
    texts = (array_text(cut(vector, dimensions)) for vector in found.vectors)
    body = in_pieces(head[:-1] + b',"embeddings":[', texts, b"]" + (b"," + tail[1:] if len(tail) > 2 else b"}"))
    return Response(body_of(body, found), content_type=_JSON_TYPE)


def vectors_of(call: Call, inputs: list[str]) -> tuple[Embeddings, int]:
    """The vectors of `inputs`, in order, and the nanoseconds until the model was there; none of them only load it."""
    model = call.find_model(TRY_PULLING)
    if not inputs:
        call.load_only(model)
        return Embeddings([], 0), 0
    lease, _ = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    with lease:
        return lease.embed(inputs, call.body.flag("truncate", True), is_cancelled=call.is_cancelled), load_ns


def embeddings() -> Response:
    """The vector of one prompt, as clients before /api/embed ask for it."""
    call = Call.from_request()
    if not call.model_name.strip():
        raise Refused(400, "model is required")
    prompt = call.body.text("prompt")
    model = call.find_model(TRY_PULLING)
    if not prompt:
        call.load_only(model)
        return one_object({"embedding": []})
    lease, _ = call.lease(model)
    with lease:
        try:
            found = lease.embed([prompt], True, is_cancelled=call.is_cancelled)
        except InputInvalid as error:
            raise Refused(500, str(error)) from None  # what the runner cannot do is a 500 on this route alone
    return Response(f'{{"embedding":{array_text(found.vectors[0])}}}', content_type=_JSON_TYPE)


def parse_inputs(value: object) -> list[str]:
    """The texts to embed. An empty text alone is no input; in a list it is one."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refused(400, "invalid input type")
    if len(value) > _MOST_INPUTS:
        raise Refused(400, f"too many inputs: {len(value)}, and {_MOST_INPUTS} are the most of one call")
    return value


def in_pieces(head: bytes, items: Iterable[str], tail: bytes) -> Iterator[bytes]:
    """The body, bit by bit: as text the vectors take several times their size. Nothing can fail any more.

    items: JSON values, which stand between `head` and `tail` with commas between them.
    """
    waiting, size, is_first = [head.decode()], 0, True
    for item in items:
        waiting += [item] if is_first else [",", item]
        is_first, size = False, size + len(item)
        if size >= _PIECE:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield "".join(waiting).encode() + tail


def body_of(pieces: Iterator[bytes], found: Embeddings) -> bytes | Iterator[bytes]:
    """The whole body where the vectors are few, as they mostly are: then its length can be told."""
    is_small = sum(map(len, found.vectors)) <= _AT_ONCE
    return b"".join(pieces) if is_small else pieces


def cut(vector: array[float], dimensions: int) -> array[float]:
    """The first `dimensions` components, at unit length again; the whole vector when that makes no sense."""
    if not 0 < dimensions < len(vector):
        return vector
    kept = vector[:dimensions]
    norm = max(math.hypot(*kept), 1e-12)
    return array("f", [component / norm for component in kept])


def array_text(vector: array[float]) -> str:
    """A JSON array. Nine digits tell one 32-bit number from all others; the seventeen of a double are noise here."""
    return "[" + ("%.9g," * len(vector) % tuple(vector))[:-1] + "]"


def _statistics(call: Call, load_ns: int, found: Embeddings) -> JSON:
    total_ns = time.monotonic_ns() - call.started_ns
    figures = {"total_duration": total_ns, "load_duration": load_ns, "prompt_eval_count": found.prompt_tokens}
    return {key: figure for key, figure in figures.items() if figure}
